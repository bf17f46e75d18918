package erofs

import (
	"fmt"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// placed is an inode with its place in the image.
type placed struct {
	node   *tree.Node
	offset int64 // from the start of meta
	size   int64 // of the content
	block  uint64
	layout int
	xattrs []byte
	tail   int // bytes of content after the inode
}

// layout gives every inode its place, in the order of names, and each
// directory's children next to each other: listing a directory reads them all.
type layout struct {
	inodes    []placed
	nextBlock uint64 // for blocks of directories and symbolic links
	end       int64  // of meta
}

// plan lays out a tree. The first block is free for blocks of directories.
func plan(root *tree.Node, firstBlock uint64) (*layout, error) {
	l := &layout{nextBlock: firstBlock, end: slotSize} // number 0 stays unused, programs take it for none
	if err := l.place(root); err != nil {
		return nil, err
	}
	return l, l.children(root)
}

func (l *layout) children(dir *tree.Node) error {
	names := dir.Names()
	for _, name := range names {
		if n := dir.Child(name); n.ID == 0 {
			if err := l.place(n); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
	}
	for _, name := range names {
		if n := dir.Child(name); n.IsDir() {
			if err := l.children(n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *layout) place(n *tree.Node) (err error) {
	p := placed{node: n, block: n.Block}
	if p.xattrs, err = encodeXattrs(n.Xattrs, n.Opaque); err != nil {
		return err
	}
	switch n.Type() {
	case unix.S_IFREG:
		p.size = n.Size
	case unix.S_IFDIR:
		content := list(n)
		p.size = content.size()
		l.inline(&p)
	case unix.S_IFLNK:
		p.size = int64(len(n.Target))
		l.inline(&p)
	}
	l.put(&p)
	n.ID = uint64(p.offset / slotSize)
	l.inodes = append(l.inodes, p)
	return nil
}

// inline divides content between blocks and the space after the inode, where
// the last part goes if one block has room for it, the inode and its xattrs.
func (l *layout) inline(p *placed) {
	blocks := uint64(p.size / blockSize)
	tail := int(p.size % blockSize)
	switch {
	case tail == 0:
		p.layout = layoutPlain
	case inodeSize+len(p.xattrs)+tail <= blockSize:
		p.layout, p.tail = layoutInline, tail
	default:
		p.layout = layoutPlain
		blocks++
	}
	p.block = l.nextBlock
	l.nextBlock += blocks
}

// put finds the next place. An inode does not cross a block; one with a tail
// does not do so with all that follows it, for the kernel reads the tail, and
// older ones also the xattrs before it, from a single block.
func (l *layout) put(p *placed) {
	start := roundUp(l.end, slotSize)
	together := int64(inodeSize)
	if p.tail > 0 {
		together += int64(len(p.xattrs) + p.tail)
	}
	if start%blockSize+together > blockSize {
		start = roundUp(start, blockSize)
	}
	p.offset = start
	l.end = start + inodeSize + int64(len(p.xattrs)+p.tail)
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
