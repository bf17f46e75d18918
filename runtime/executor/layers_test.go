package executor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cri-mini/runtime/internal/mount"
)

// A mount that nobody needs keeps the disk space of the file that it is of.
func TestSweepLetsGoOfLayersThatWereRemovedOrReplaced(t *testing.T) {
	dir := t.TempDir()
	var l layerMounts
	l.mounts = map[string]layerMount{}
	defer l.close()
	trees := map[string]*mount.Tree{}
	put := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, name := range []string{"kept", "removed", "replaced"} {
		path := put(name)
		file, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := mount.New("tmpfs", 0)
		if err != nil {
			t.Fatal(err)
		}
		l.mounts[path], trees[name] = layerMount{tree, file}, tree
	}
	if err := os.Remove(filepath.Join(dir, "removed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(put("new"), filepath.Join(dir, "replaced")); err != nil {
		t.Fatal(err)
	}
	l.sweep()
	for name, tree := range trees {
		_, known := l.mounts[filepath.Join(dir, name)]
		_, err := tree.File.Stat()
		if held := !errors.Is(err, os.ErrClosed); held != (name == "kept") || known != held {
			t.Errorf("%s: held %v (%v), known %v", name, held, err, known)
		}
	}
}
