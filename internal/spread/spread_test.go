package spread

import (
	"path/filepath"
	"testing"
)

func TestFolderThatIsNotThereIsAnError(t *testing.T) {
	if err := Children(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("want an error")
	}
}
