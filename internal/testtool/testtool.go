// Package testtool finds programs of other projects that a test compares with
// or checks against. A Missing tool is a typed reason to skip, so that a run of
// the tests can list what it could not check and what to install.
package testtool

import (
	"fmt"
	"os/exec"
	"testing"
)

// Missing says which tool a test lacks and which Debian package has it.
type Missing struct{ Tool, Package string }

func (m *Missing) Error() string {
	return fmt.Sprintf("tool missing: %s (apt-get install %s)", m.Tool, m.Package)
}

// Find returns the path of a tool, or *Missing.
func Find(tool, pkg string) (string, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return "", &Missing{tool, pkg}
	}
	return path, nil
}

// Need returns the path of a tool and skips the test when there is none.
func Need(t testing.TB, tool, pkg string) string {
	t.Helper()
	path, err := Find(tool, pkg)
	if err != nil {
		t.Skip(err)
	}
	return path
}
