// Package cri is the face towards the kubelet: the Kubernetes Container
// Runtime Interface over gRPC.
//
// A method of Server decodes a request, calls the thing it concerns and
// encodes the answer; it holds no locks and no state and decides nothing.
// errors.go alone chooses gRPC codes. What the interface asks for and we do
// not have answers Unimplemented with the name of the call.
package cri
