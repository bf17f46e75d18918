package tree

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func link(target string) *Node { return &Node{Mode: unix.S_IFLNK, Target: target} }

// walk makes directories that are missing.
func walk(root *Node) *Walk {
	return &Walk{Root: root, Depth: 256, Bytes: 4095, Make: func(dir *Node, name string, old *Node) (*Node, error) {
		n := ImpliedDir()
		if old != nil {
			dir.Drop(name)
		}
		dir.Put(name, n)
		return n, nil
	}}
}

func TestWalkStaysInTheTree(t *testing.T) {
	for _, c := range []struct{ links, path, want string }{
		{"", "a/b", "a/b"},
		{"l=x", "l/b", "x/b"},
		{"l=/x/y", "l", "x/y"},
		{"l=../../../etc", "l/b", "etc/b"},
		{"l=/", "l/a", "a"},
		{"l=.", "l/l/l/a", "a"},
		{"l=..", "l", "."},
		{"l=a/../b//./c", "l", "b/c"},
		{"l=m;m=n;n=end", "l", "end"},
		{"d/l=../up", "d/l/x", "up/x"},
		{"l=d;d/m=../e", "l/m", "e"},
	} {
		root := NewRoot()
		for _, l := range strings.FieldsFunc(c.links, func(r rune) bool { return r == ';' }) {
			at, target, _ := strings.Cut(l, "=")
			names := strings.Split(at, "/")
			dir, err := walk(root).To(names[:len(names)-1])
			if err != nil {
				t.Fatal(err)
			}
			dir.Put(names[len(names)-1], link(target))
		}
		got, err := walk(root).To(strings.Split(c.path, "/"))
		if err != nil || got.Path() != c.want {
			t.Errorf("with links %q, %q leads to %v, %v; want %q", c.links, c.path, got, err, c.want)
		}
	}
}

func TestWalkEndsWithAReason(t *testing.T) {
	root := NewRoot()
	root.Put("file", &Node{Mode: unix.S_IFREG})
	root.Put("loop", link("loop/x"))
	root.Put("gone", Whiteout())
	root.Put("deep", link(strings.Repeat("d/", 100)))
	for i := range 41 {
		root.Put(fmt.Sprint("c", i), link(fmt.Sprint("c", i+1)))
	}
	w := walk(root)
	w.Depth = 50
	for path, want := range map[string]error{
		"file/x": Error(`"file" is not a directory`), "loop": ErrLoop, "c0": ErrLoop, "deep": ErrTooDeep,
		strings.Repeat("n", 256): Error("name of 256 bytes, at most 255 are possible"),
	} {
		if dir, err := w.To(strings.Split(path, "/")); !errors.Is(err, want) {
			t.Errorf("%.20s: %v, %v; want %v", path, dir, err, want)
		}
	}
	w.Make = nil
	for _, path := range []string{"absent", "gone"} {
		if _, err := w.To([]string{path}); !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v, want ErrMissing", path, err)
		}
	}
}

func TestDropCountsTheInodesThatAreGone(t *testing.T) {
	root := NewRoot()
	dir, file := ImpliedDir(), &Node{Mode: unix.S_IFREG}
	root.Put("d", dir)
	root.Put("a", file)
	dir.Put("b", file)
	dir.Put("c", &Node{Mode: unix.S_IFREG})
	if gone := root.Drop("d"); gone != 2 || file.Links != 1 {
		t.Errorf("%d inodes gone, %d links left; want the directory and c, and 1", gone, file.Links)
	}
	if gone := root.Drop("a"); gone != 1 {
		t.Errorf("%d inodes gone, want 1", gone)
	}
	if gone := root.Drop("a"); gone != 0 {
		t.Errorf("%d inodes gone of nothing", gone)
	}
}
