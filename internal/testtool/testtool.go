// Package testtool lets a test say which program from outside it needs. A
// machine without the program skips the test with a line that names the
// program and the Debian package, so that `make test` can list what it could
// not run. It installs nothing.
package testtool

import (
	"os/exec"
	"testing"
)

// Need returns the path of a program, or skips t.
func Need(t testing.TB, tool, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		Missing(t, tool, debianPackage)
	}
	return path
}

// Missing skips t because of a tool that is no program, such as a C library.
func Missing(t testing.TB, tool, debianPackage string) {
	t.Helper()
	t.Skipf("missing tool: %s (Debian package %s)", tool, debianPackage)
}
