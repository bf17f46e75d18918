package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemovalGoesThroughNoLinkAndNoMountOfAnyForm(t *testing.T) {
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	write(t, precious)
	dir := filepath.Join(t.TempDir(), "d")
	for n := range 2500 { // more than one look at the folder
		if n == 0 {
			mkdir(t, dir+"/many")
		}
		write(t, fmt.Sprintf("%s/many/%d", dir, n))
	}
	mkdir(t, dir+"/a/b/c")
	if err := os.Symlink(outside, dir+"/a/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/a/b", 0); err != nil {
		t.Fatal(err)
	}
	folder, file := dir+"/a/bound", dir+"/a/file"
	mkdir(t, folder)
	write(t, file)
	// Of the same file system: the number of the device shows nothing.
	for point, what := range map[string]string{folder: outside, file: precious, dir: outside} {
		if err := unix.Mount(what, point, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if err := RemoveFolder(dir); err == nil || !strings.Contains(err.Error(), point+":") {
			t.Errorf("remove: %v, want an error that names %s", err, point)
		}
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		mkdir(t, folder)
		write(t, file)
	}
	for range 2 { // the second time it is gone
		if err := RemoveFolder(dir + "/"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder after its removal: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what is outside: %v", err)
	}
	if err := RemoveFolder(filepath.Join(dir, "x", "y")); err != nil {
		t.Errorf("a folder in none: %v", err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestThingOfAKnownOwnerIsNeverNamedForeign(t *testing.T) {
	things := []Thing{{Name: "made before", Owner: "1", Foreign: "no mark"}, {Name: "somebody's", Owner: "2", Foreign: "no mark"}}
	leftovers, foreign := Compare(things, map[string]bool{"1": true})
	if len(leftovers) != 0 || len(foreign) != 1 || foreign[0].Name != "somebody's" {
		t.Errorf("leftovers %+v, foreign %+v", leftovers, foreign)
	}
}
