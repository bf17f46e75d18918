// Package critest is the upstream CRI suite, compiled with our own image digest.
// It knows nothing of the daemon: the program in ./run starts one, gives it the
// images of internal/testimage by internal/registry, and judges the report.
package critest
