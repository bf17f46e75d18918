package testtool

import (
	"errors"
	"strings"
	"testing"
)

func TestMissingToolNamesItsPackage(t *testing.T) {
	_, err := Find("no-such-tool-anywhere", "some-package")
	var missing *Missing
	if !errors.As(err, &missing) || missing.Package != "some-package" || !strings.Contains(err.Error(), "apt-get install some-package") {
		t.Fatalf("Find of nothing: %v, want *Missing that names the package", err)
	}
	if path, err := Find("sh", "dash"); err != nil || path == "" {
		t.Fatalf("Find(sh) = %q, %v", path, err)
	}
}
