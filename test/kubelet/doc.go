// Package kubelet tests a whole node as Kubernetes runs it: the stock kubelet,
// told to start static pods, with cri-mini as its only container runtime.
//
// A node is a daemon and a kubelet with folders of their own. A pod is a file
// of the folder pods, put where the kubelet looks for static pods. What the
// tests see they ask the kubelet's API for, as an API server does.
package kubelet
