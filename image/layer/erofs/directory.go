package erofs

import "cri-mini/image/layer/tree"

// listing is the names of a directory in the order of the format, "." and ".."
// among them, and where each block of the listing begins.
type listing struct {
	names  []string
	starts []int // of blocks, as indexes into names
	last   int   // bytes in the last block
}

func list(dir *tree.Node) listing {
	l := listing{names: withDots(dir.Names()), starts: []int{0}}
	for i, name := range l.names {
		need := direntSize + len(name)
		if l.last+need > blockSize {
			l.starts = append(l.starts, i)
			l.last = 0
		}
		l.last += need
	}
	return l
}

// withDots adds "." and ".." to sorted names where they belong.
func withDots(names []string) []string {
	at := 0
	for at < len(names) && names[at] < "." {
		at++
	}
	all := make([]string, 0, len(names)+2)
	all = append(all, names[:at]...)
	all = append(all, ".")
	for at < len(names) && names[at] < ".." {
		all = append(all, names[at])
		at++
	}
	all = append(all, "..")
	return append(all, names[at:]...)
}

func (l *listing) size() int64 { return int64(len(l.starts)-1)*blockSize + int64(l.last) }

// encode fills block i of the listing; b is a block of zeros, or as long as the
// last block has bytes. All inodes have their numbers by now.
func (l *listing) encode(b []byte, dir *tree.Node, i int) {
	names := l.names[l.starts[i]:]
	if i+1 < len(l.starts) {
		names = l.names[l.starts[i]:l.starts[i+1]]
	}
	nameOffset := direntSize * len(names)
	for j, name := range names {
		n := child(dir, name)
		entry := b[j*direntSize:]
		le.PutUint64(entry[0:], n.ID)
		le.PutUint16(entry[8:], uint16(nameOffset))
		entry[10] = fileType(n)
		nameOffset += copy(b[nameOffset:], name)
	}
}

func child(dir *tree.Node, name string) *tree.Node {
	switch name {
	case ".":
		return dir
	case "..":
		return dir.Parent()
	}
	return dir.Child(name)
}
