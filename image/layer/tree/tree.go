// Package tree holds what a layer contains while the layer is being written.
//
// A Node is a file, directory, symbolic link, device, pipe or whiteout. A
// directory names its children; a node with several names is a hard link. The
// tree is the one place that decides where an entry of an archive ends up, so
// that no symbolic link of a stranger is ever followed on the host. It does
// not touch the disk and knows neither archives nor file systems.
package tree

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Node is one inode of a layer.
type Node struct {
	Mode         uint32 // type and permissions, as in stat(2)
	UID, GID     uint32
	Sec          int64 // of the modification time
	Nsec         uint32
	Major, Minor uint32 // of a device
	Target       string // of a symbolic link
	Size         int64  // of a regular file
	Sum          uint32 // CRC-32C of its content
	Xattrs       []Xattr
	Opaque       bool   // a directory that hides the lower layers' of that name
	Links        uint32 // names of a node that is not a directory

	Block uint64 // where the writer of an image put the content
	ID    uint64 // the number that the writer of an image gave it

	parent   *Node // of a directory; nil for the root
	name     string
	children map[string]*Node
}

// Xattr is one extended attribute, with its full name.
type Xattr struct {
	Name  string
	Value []byte
}

// NewRoot makes the root of a layer whose archive does not describe it.
func NewRoot() *Node { return ImpliedDir() }

// ImpliedDir makes a directory that an archive uses but does not describe. Its
// time is fixed, for the same archive must give the same layer.
func ImpliedDir() *Node { return &Node{Mode: unix.S_IFDIR | 0o755} }

// Whiteout makes the mark that hides a name of the lower layers.
func Whiteout() *Node { return &Node{Mode: unix.S_IFCHR} }

// Type is the S_IFMT part of the mode.
func (n *Node) Type() uint32 { return n.Mode & unix.S_IFMT }

// IsDir tells whether the node is a directory.
func (n *Node) IsDir() bool { return n.Type() == unix.S_IFDIR }

// IsWhiteout tells whether overlayfs takes the node for a whiteout.
func (n *Node) IsWhiteout() bool {
	return n.Type() == unix.S_IFCHR && n.Major == 0 && n.Minor == 0
}

// IsRoot tells whether the node is the root of the layer.
func (n *Node) IsRoot() bool { return n.IsDir() && n.parent == nil }

// Parent is the directory that holds a directory; the root holds itself.
func (n *Node) Parent() *Node {
	if n.parent == nil {
		return n
	}
	return n.parent
}

// Child returns the child of that name, or nil.
func (n *Node) Child(name string) *Node { return n.children[name] }

// Put gives child a name in a directory where that name is free.
func (n *Node) Put(name string, child *Node) {
	if n.children == nil {
		n.children = make(map[string]*Node)
	}
	n.children[name] = child
	if child.IsDir() {
		child.parent, child.name = n, name
	} else {
		child.Links++
	}
}

// Drop takes a name and all below it away and returns how many inodes ceased
// to have a name.
func (n *Node) Drop(name string) (gone int) {
	child := n.children[name]
	if child == nil {
		return 0
	}
	delete(n.children, name)
	if !child.IsDir() {
		child.Links--
		if child.Links == 0 {
			return 1
		}
		return 0
	}
	for name := range child.children {
		gone += child.Drop(name)
	}
	child.parent = nil
	return gone + 1
}

// Children are the names in a directory and their nodes, in no order.
func (n *Node) Children() iter.Seq2[string, *Node] { return maps.All(n.children) }

// Len is the number of names in a directory.
func (n *Node) Len() int { return len(n.children) }

// Describe gives a directory that is already there the attributes of another
// description of it. Its children, and that it is opaque, stay.
func (n *Node) Describe(d *Node) {
	n.Mode, n.UID, n.GID, n.Sec, n.Nsec, n.Xattrs = d.Mode, d.UID, d.GID, d.Sec, d.Nsec, d.Xattrs
}

// Names are the names in a directory, in byte order.
func (n *Node) Names() []string {
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Path leads from the root to a directory; it is "." for the root.
func (n *Node) Path() string {
	if n.parent == nil {
		return "."
	}
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// depth returns how many names lead to a directory, and the length of its path.
func (n *Node) depth() (names, bytes int) {
	for ; n.parent != nil; n = n.parent {
		names++
		bytes += len(n.name) + 1
	}
	return names, bytes
}
