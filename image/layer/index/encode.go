package index

import (
	"encoding/binary"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// The format, numbers being varints and strings preceded by their length:
//
//	head       the line in magic
//	file       size, rest, two sums
//	node       0 and which node with several names it is; or
//	           mode, uid, gid, seconds, nanoseconds, then by type
//	             file       size, block, sum
//	             link       target
//	             device     major, minor
//	             directory  opaque, number of names
//	           for all but directories the number of names
//	           xattrs: their number, name and value of each
//	           in a directory each name and its node, in byte order
//	tail       sum of all before
const magic = "cri-mini layer index 1\n"

type encoder struct {
	out    []byte
	linked map[*tree.Node]uint64 // nodes with several names, numbered from 1
}

// Encode makes bytes of an index; the same index gives the same bytes.
func Encode(x Index) []byte {
	e := encoder{out: []byte(magic), linked: map[*tree.Node]uint64{}}
	e.numbers(uint64(x.File.Size), uint64(x.File.Rest), uint64(x.File.HeadSum), uint64(x.File.RestSum))
	e.node(x.Root)
	return binary.LittleEndian.AppendUint32(e.out, Sum(0, e.out))
}

func (e *encoder) numbers(list ...uint64) {
	for _, n := range list {
		e.out = binary.AppendUvarint(e.out, n)
	}
}

func (e *encoder) text(s string) {
	e.numbers(uint64(len(s)))
	e.out = append(e.out, s...)
}

func (e *encoder) node(n *tree.Node) {
	if number := e.linked[n]; number > 0 {
		e.numbers(0, number)
		return
	}
	e.numbers(uint64(n.Mode), uint64(n.UID), uint64(n.GID))
	e.out = binary.AppendVarint(e.out, n.Sec)
	e.numbers(uint64(n.Nsec))
	switch n.Type() {
	case unix.S_IFREG:
		e.numbers(uint64(n.Size), n.Block, uint64(n.Sum))
	case unix.S_IFLNK:
		e.text(n.Target)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.numbers(uint64(n.Major), uint64(n.Minor))
	case unix.S_IFDIR:
		opaque := uint64(0)
		if n.Opaque {
			opaque = 1
		}
		e.numbers(opaque, uint64(n.Len()))
	}
	if !n.IsDir() {
		e.numbers(uint64(n.Links))
		if n.Links > 1 {
			e.linked[n] = uint64(len(e.linked) + 1)
		}
	}
	e.numbers(uint64(len(n.Xattrs)))
	for _, x := range n.Xattrs {
		e.text(x.Name)
		e.text(string(x.Value))
	}
	if !n.IsDir() {
		return
	}
	for _, name := range n.Names() {
		e.text(name)
		e.node(n.Child(name))
	}
}
