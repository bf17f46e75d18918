//go:build !broken_sweep

package broken

// Sweep: layers that were being unpacked when the daemon was killed are not removed.
const Sweep = false
