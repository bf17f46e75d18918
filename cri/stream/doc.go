// Package stream carries the bytes of exec, attach and port-forward.
//
// A Server listens on one TCP address of the node. A call of the CRI leaves a
// request there and gets a URL with a token, which serves exactly one
// connection of the kubelet or crictl and dies after a minute. A connection is
// watched: when the client goes away, everything that was done for it ends.
//
// The protocols are the streaming library's. The package knows nothing of
// gRPC, and of pods only what Pods says.
package stream
