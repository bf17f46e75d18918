//go:build tools

// Package runc pins the runc that hack/peers builds. It holds no code.
package runc

import _ "github.com/opencontainers/runc"
