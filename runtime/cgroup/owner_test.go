package cgroup

import (
	"os"
	"testing"
)

func TestGroupsTellTheirOwner(t *testing.T) {
	root, parent := ownerPlace(t)
	for _, name := range []string{"/ours", "/theirs", "/nobodys"} {
		if err := os.Mkdir(root.Path+parent+name, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(root.Path + parent + name) })
	}
	for name, owner := range map[string]string{"/ours": "/run/a", "/theirs": "/run/b"} {
		g, err := root.Load(parent + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Mark(owner); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]string{}
	if err := root.Groups(func(g Found) bool {
		found[g.Path] = g.Owner
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"/ours": "/run/a", "/theirs": "/run/b", "/nobodys": ""} {
		if owner, ok := found[parent+name]; !ok || owner != want {
			t.Errorf("group %s: owner %q (found %t), want %q", name, owner, ok, want)
		}
	}
}

func ownerPlace(t *testing.T) (Root, string) {
	t.Helper()
	root, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root.Path, "cri-mini-owner-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	return root, dir[len(root.Path):]
}
