//go:build tools

// Package kubelet pins the kubelet that the tests run. It holds no code:
// hack/kubelet builds what the module requires.
package kubelet

import _ "k8s.io/kubernetes/cmd/kubelet" // what hack/kubelet builds
