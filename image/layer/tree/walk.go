package tree

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Error is a reason why a path leads nowhere. It is the archive's fault.
type Error string

func (e Error) Error() string { return string(e) }

// Reasons that need no further words.
const (
	ErrMissing = Error("not in this layer")
	ErrTooDeep = Error("path too deep")
	ErrLoop    = Error("too many symbolic links")
)

const (
	maxLinks = 40   // as in the kernel
	maxSteps = 1024 // else a small archive of long links keeps us busy for hours
)

// Walk finds directories in a tree, following the symbolic links of the layer
// as a process would whose root directory the layer is: a link that is
// absolute, or climbs, ends at the root of the layer. All of it happens in
// memory, which is why the link cannot be swapped under us and why the path
// that comes out (see Node.Path) contains no link.
type Walk struct {
	Root  *Node
	Depth int // most names in a path
	Bytes int // longest path

	// Make is called for a directory that the path names and nobody described,
	// in place of old if that is a whiteout. When it is nil such a path is
	// ErrMissing.
	Make func(dir *Node, name string, old *Node) (*Node, error)

	links, steps int
}

// To follows a path whose names are free of "." and "..".
func (w *Walk) To(names []string) (*Node, error) {
	w.links, w.steps = 0, 0
	return w.follow(w.Root, names)
}

func (w *Walk) follow(dir *Node, names []string) (*Node, error) {
	for _, name := range names {
		if w.steps++; w.steps > maxSteps {
			return nil, ErrLoop
		}
		next, err := w.step(dir, name)
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

func (w *Walk) step(dir *Node, name string) (*Node, error) {
	switch name {
	case "", ".":
		return dir, nil
	case "..":
		return dir.Parent(), nil
	}
	child := dir.Child(name)
	switch {
	case child == nil || child.IsWhiteout():
		return w.makeDir(dir, name, child)
	case child.IsDir():
		return child, nil
	case child.Type() == unix.S_IFLNK:
		return w.followLink(dir, child.Target)
	default:
		return nil, Error(fmt.Sprintf("%q is not a directory", join(dir, name)))
	}
}

func (w *Walk) followLink(dir *Node, target string) (*Node, error) {
	if w.links++; w.links > maxLinks {
		return nil, ErrLoop
	}
	if strings.HasPrefix(target, "/") {
		dir = w.Root
	}
	return w.follow(dir, strings.Split(target, "/"))
}

func (w *Walk) makeDir(dir *Node, name string, old *Node) (*Node, error) {
	if w.Make == nil {
		return nil, ErrMissing
	}
	if err := w.Fits(dir, name); err != nil {
		return nil, err
	}
	return w.Make(dir, name, old)
}

// Fits tells whether a name in a directory stays within the limits. Links can
// make a path longer than any the archive contains.
func (w *Walk) Fits(dir *Node, name string) error {
	names, bytes := dir.depth()
	if names+1 > w.Depth || bytes+len(name) > w.Bytes {
		return ErrTooDeep
	}
	if len(name) > unix.NAME_MAX {
		return Error(fmt.Sprintf("name of %d bytes, at most %d are possible", len(name), unix.NAME_MAX))
	}
	return nil
}

func join(dir *Node, name string) string {
	if dir.IsRoot() {
		return name
	}
	return dir.Path() + "/" + name
}
