//go:build tools

// Package containerd pins the containerd that measurements compare with. It holds
// no code: hack/peers builds what the module requires.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
)
