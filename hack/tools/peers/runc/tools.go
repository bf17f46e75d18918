//go:build tools

// Package runc pins the runc that measurements compare with. It holds
// no code: hack/peers builds what the module requires.
package runc

import _ "github.com/opencontainers/runc"
