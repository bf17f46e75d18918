// Package index remembers what was written of a layer, so that its place on
// the disk can be compared with it at any later time.
//
// An Index is the tree of a layer with a sum of each file's content; of a layer
// that is one image file, also where in the file everything is. Encoded it is a
// few dozen bytes a file, followed by a sum of its own. The sums find damage,
// not malice: who can write here can write the index too. The package touches
// no disk.
package index

import (
	"hash/crc32"

	"cri-mini/image/layer/tree"
)

// Index is what a layer is made of.
type Index struct {
	Root *tree.Node
	File File
}

// File is the image file that a layer is; zero for a directory.
type File struct {
	Size    int64  // of the file
	Rest    int64  // where all begins that is not content of files
	HeadSum uint32 // of the first block
	RestSum uint32 // of all from Rest on
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum adds bytes to a CRC-32C, which begins as 0.
func Sum(sum uint32, p []byte) uint32 { return crc32.Update(sum, castagnoli, p) }
