package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// ErrDamaged says that bytes are not what Encode made.
var ErrDamaged = errors.New("index is damaged")

// maxDepth is far above what an archive may have, and keeps the stack small.
const maxDepth = 1024

type decoder struct {
	in     []byte
	linked []*tree.Node
	failed error // the first reason; all that follows is zero
}

// Decode makes an index of what Encode made. Bytes that a disk has spoiled are
// ErrDamaged, whatever they are.
func Decode(data []byte) (Index, error) {
	body := len(data) - 4
	if body < len(magic) || !strings.HasPrefix(string(data[:len(magic)]), "cri-mini layer index ") {
		return Index{}, fmt.Errorf("%w: it has no head", ErrDamaged)
	}
	if want := binary.LittleEndian.Uint32(data[body:]); Sum(0, data[:body]) != want {
		return Index{}, fmt.Errorf("%w: its sum is wrong", ErrDamaged)
	}
	if string(data[:len(magic)]) != magic {
		return Index{}, fmt.Errorf("index is of another version: %q", data[:len(magic)])
	}
	d := decoder{in: data[len(magic):body]}
	x := Index{File: File{Size: d.size(), Rest: d.size(), HeadSum: d.word(), RestSum: d.word()}}
	x.Root = d.node(0)
	switch {
	case d.failed != nil:
		return Index{}, fmt.Errorf("%w: %w", ErrDamaged, d.failed)
	case len(d.in) > 0:
		return Index{}, fmt.Errorf("%w: %d bytes too many", ErrDamaged, len(d.in))
	case !x.Root.IsDir():
		return Index{}, fmt.Errorf("%w: its root is no directory", ErrDamaged)
	}
	return x, nil
}

func (d *decoder) fail(format string, args ...any) {
	if d.failed == nil {
		d.failed = fmt.Errorf(format, args...)
		d.in = nil
	}
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.in)
	if size <= 0 {
		d.fail("a number is cut off")
		return 0
	}
	d.in = d.in[size:]
	return n
}

func (d *decoder) word() uint32 {
	n := d.number()
	if n > math.MaxUint32 {
		d.fail("number %d is out of range", n)
	}
	return uint32(n)
}

func (d *decoder) size() int64 {
	n := d.number()
	if n > math.MaxInt64 {
		d.fail("number %d is out of range", n)
	}
	return int64(n)
}

func (d *decoder) signed() int64 {
	n, size := binary.Varint(d.in)
	if size <= 0 {
		d.fail("a number is cut off")
		return 0
	}
	d.in = d.in[size:]
	return n
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.in)) {
		d.fail("a string is cut off")
		return ""
	}
	s := string(d.in[:n])
	d.in = d.in[n:]
	return s
}

// node is a regular file without anything once the decoder has failed.
func (d *decoder) node(depth int) *tree.Node {
	mode := d.word()
	if mode == 0 {
		return d.again()
	}
	n := &tree.Node{Mode: mode, UID: d.word(), GID: d.word(), Sec: d.signed(), Nsec: d.word()}
	names := uint64(0)
	switch n.Type() {
	case unix.S_IFREG:
		n.Size, n.Block, n.Sum = d.size(), d.number(), d.word()
	case unix.S_IFLNK:
		n.Target = d.text()
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Major, n.Minor = d.word(), d.word()
	case unix.S_IFIFO:
	case unix.S_IFDIR:
		n.Opaque, names = d.number() != 0, d.number()
	default:
		d.fail("mode %o has no type", mode)
	}
	if !n.IsDir() && d.number() > 1 {
		d.linked = append(d.linked, n)
	}
	for count := d.number(); count > 0 && d.failed == nil; count-- {
		n.Xattrs = append(n.Xattrs, tree.Xattr{Name: d.text(), Value: []byte(d.text())})
	}
	if depth > maxDepth {
		d.fail("more than %d directories in each other", maxDepth)
	}
	for ; names > 0 && d.failed == nil; names-- {
		d.child(n, depth)
	}
	return n
}

func (d *decoder) child(dir *tree.Node, depth int) {
	name := d.text()
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || dir.Child(name) != nil {
		d.fail("name %q", name)
		return
	}
	child := d.node(depth + 1)
	if d.failed == nil {
		dir.Put(name, child)
	}
}

// again is a further name of a node.
func (d *decoder) again() *tree.Node {
	number := d.number()
	if number == 0 || number > uint64(len(d.linked)) {
		d.fail("hard link to node %d of %d", number, len(d.linked))
		return &tree.Node{Mode: unix.S_IFREG}
	}
	return d.linked[number-1]
}
