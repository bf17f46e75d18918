//go:build tools

// Package containerd pins the containerd that hack/peers builds. It holds no code.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
)
