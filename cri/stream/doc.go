// Package stream carries the bytes of exec, attach and port-forward.
//
// A Server listens on one TCP address of the node. A call of the CRI leaves a
// request there and gets a URL with a token, which serves exactly one
// connection of the kubelet or crictl and dies after a minute. The connection
// becomes a session: of exec or attach with a remote, the client's side of a
// program's streams, or of port-forward with one forward for each connection
// of the client. Either comes over SPDY or WebSocket. A connection is watched:
// when the client goes away, everything that was done for it ends.
//
// Frames are read and written by libraries; what they mean is here. The package
// knows nothing of gRPC, and of pods only what Pods says.
package stream
