// Package podsandbox holds pods and containers as things with a life.
//
// Pods is the table of all of them, answered from memory. A Sandbox is the
// shared namespaces and the network of one pod. A Container belongs to one
// sandbox; its state is derived from its exit, its start and the monitor's
// word, never stored. A record is the file that lets a later daemon know them
// again.
//
// The package decides on names, the order of steps, retries and what to take
// back; what a request means is the business of package plan. It leaves the
// kernel to an Executor, the network to package network and the layers to
// Images. It knows nothing of gRPC.
package podsandbox
