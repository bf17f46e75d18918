// Package erofs writes EROFS file system images, the read-only format of the
// Linux kernel.
//
// A Writer takes the content of files as it comes and writes it at once; the
// tree with all names and attributes follows at the end, and the superblock
// last, so that an unfinished image is not an image. The same input gives the
// same bytes. Of the format's features it uses the plainest ones, which all
// kernels since 5.4 read: no compression, no chunks, no shared xattrs.
//
//	block 0     superblock at byte 1024
//	…           content of files, each from the start of a block
//	…           full blocks of directories, symbolic links that fit nowhere else
//	meta        inodes with their xattrs and, for directories and symbolic
//	            links, the part of the content that fills no block
package erofs

import (
	"encoding/binary"
	"hash/crc32"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

const (
	blockBits = 12
	blockSize = 1 << blockBits
	maxBlocks = 1<<32 - 1

	superMagic  = 0xe0f5e1e2
	superOffset = 1024
	superSize   = 128

	featureChecksum = 1 // compatible: the superblock has a checksum
	featureMtime    = 2 // compatible: times are modification times

	slotSize  = 32 // the number of an inode counts these from the start of meta
	inodeSize = 64 // of the "extended" kind, the only one with its own time

	layoutPlain  = 0 // all content in blocks
	layoutInline = 2 // the last, partial block follows the inode

	direntSize = 12

	xattrHeaderSize = 12
	xattrEntrySize  = 4
)

// Namespaces of xattrs have numbers instead of names.
var xattrSpaces = []struct {
	prefix string
	index  byte
}{
	{"user.", 1},
	{"trusted.", 4},
	{"security.", 6},
}

var le = binary.LittleEndian

type super struct {
	rootID     uint64
	inodes     int
	blocks     uint64
	metaBlock  uint64
	identifier [16]byte
}

// encode fills the first block of an image.
func (s *super) encode() []byte {
	block := make([]byte, blockSize)
	b := block[superOffset:]
	le.PutUint32(b[0:], superMagic)
	le.PutUint32(b[8:], featureChecksum|featureMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(s.rootID))
	le.PutUint64(b[16:], uint64(s.inodes))
	le.PutUint32(b[36:], uint32(s.blocks))
	le.PutUint32(b[40:], uint32(s.metaBlock))
	copy(b[48:64], s.identifier[:])
	// The kernel's crc32c is not inverted at the end, and covers the block.
	le.PutUint32(b[4:], ^crc32.Checksum(b, castagnoli))
	return block
}

// encodeInode fills one inode.
func encodeInode(b []byte, n *tree.Node, p *placed, number int) {
	le.PutUint16(b[0:], uint16(1|p.layout<<1)) // 1: extended
	le.PutUint16(b[2:], xattrCount(p.xattrs))
	le.PutUint16(b[4:], uint16(n.Mode))
	le.PutUint64(b[8:], uint64(p.size))
	le.PutUint32(b[16:], position(n, p))
	le.PutUint32(b[20:], uint32(number))
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	le.PutUint64(b[32:], uint64(n.Sec))
	le.PutUint32(b[40:], n.Nsec)
	le.PutUint32(b[44:], links(n))
}

// position is the field for what the type of the inode needs: the number of a
// device, or where the content begins.
func position(n *tree.Node, p *placed) uint32 {
	switch n.Type() {
	case unix.S_IFCHR, unix.S_IFBLK:
		return n.Minor&0xff | n.Major<<8 | n.Minor&^0xff<<12
	}
	return uint32(p.block)
}

func links(n *tree.Node) uint32 {
	if !n.IsDir() {
		return n.Links
	}
	count := uint32(2)
	for _, child := range n.Children() {
		if child.IsDir() {
			count++
		}
	}
	return count
}

// xattrCount is the size of xattrs in an inode's own unit.
func xattrCount(encoded []byte) uint16 {
	if len(encoded) == 0 {
		return 0
	}
	return uint16((len(encoded)-xattrHeaderSize)/xattrEntrySize + 1)
}

// fileType is the type in a directory entry.
func fileType(n *tree.Node) byte {
	switch n.Type() {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	case unix.S_IFLNK:
		return 7
	}
	return 0
}
