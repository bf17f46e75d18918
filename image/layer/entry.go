package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"strings"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// ErrInvalid is what every error about the bytes of an archive wraps: trying
// again will not help. Errors of this machine do not wrap it.
var ErrInvalid = errors.New("invalid layer")

// invalid is a reason that is ErrInvalid without repeating its words.
type invalid string

func (e invalid) Error() string        { return string(e) }
func (e invalid) Is(target error) bool { return target == ErrInvalid }

func invalidf(format string, args ...any) error { return invalid(fmt.Sprintf(format, args...)) }

// The kinds of entry. Sequential changes of an archive become these.
type kind int

const (
	ignored   kind = iota
	inode          // a file, directory, symbolic link, device or pipe
	hardLink       // one more name for a file of the same layer
	whiteout       // hides a name of the lower layers
	opaqueDir      // hides what the lower layers have in a directory
)

// entry is one checked entry of an archive: names that cannot climb, numbers
// that the kernel has room for, attributes that mean no more than they say.
type entry struct {
	kind   kind
	path   []string // from the root of the layer; empty for the root itself
	link   []string // what a hard link names
	node   *tree.Node
	sparse bool
}

// Names with these prefixes are messages to us, not files.
const (
	whiteoutPrefix = ".wh."
	aufsPrefix     = ".wh..wh." // AUFS keeps its own books under such names; layers still contain some
	opaqueName     = ".wh..wh..opq"
)

// parse turns a header into an entry or refuses it. It is the only judge of
// headers, for both forms of a layer.
func parse(h *tar.Header, limits *Limits) (entry, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return entry{}, nil
	}
	path, err := splitPath(h.Name, limits)
	if err != nil {
		return entry{}, err
	}
	if e, special, err := parseWhiteout(path); special || err != nil {
		return e, err
	}
	if h.Typeflag == tar.TypeLink {
		link, err := splitPath(h.Linkname, limits)
		if err != nil {
			return entry{}, fmt.Errorf("hard link to %q: %w", h.Linkname, err)
		}
		return entry{kind: hardLink, path: path, link: link}, nil
	}
	node, err := parseNode(h)
	if err != nil {
		return entry{}, err
	}
	if node.IsWhiteout() {
		// What an overlay file system stores for a whiteout, packed as it is.
		return entry{kind: whiteout, path: path, node: tree.Whiteout()}, nil
	}
	if len(path) == 0 && !node.IsDir() {
		return entry{}, invalidf("the root of a layer must be a directory")
	}
	return entry{kind: inode, path: path, node: node, sparse: isSparse(h)}, nil
}

// splitPath accepts "a/b", "./a/b" and "/a/b", all meant from the root of the
// layer. A name that climbs is refused rather than cleaned: nobody makes it
// without intent or error.
func splitPath(name string, limits *Limits) ([]string, error) {
	if name == "" {
		return nil, invalidf("empty name")
	}
	if len(name) > limits.Path {
		return nil, invalidf("path of %d bytes, at most %d are allowed", len(name), limits.Path)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, invalidf("name contains a NUL byte")
	}
	var path []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, invalidf("name contains \"..\"")
		case len(part) > unix.NAME_MAX:
			return nil, invalidf("name of %d bytes, at most %d are possible", len(part), unix.NAME_MAX)
		}
		path = append(path, part)
	}
	if len(path) > limits.Depth {
		return nil, invalidf("path of %d names, at most %d are allowed", len(path), limits.Depth)
	}
	return path, nil
}

func parseWhiteout(path []string) (e entry, special bool, err error) {
	for i, part := range path {
		last := i == len(path)-1
		switch {
		case !strings.HasPrefix(part, whiteoutPrefix):
			continue
		case part == opaqueName && last:
			return entry{kind: opaqueDir, path: path[:i]}, true, nil
		case strings.HasPrefix(part, aufsPrefix):
			return entry{}, true, nil
		case !last:
			return entry{}, true, invalidf("%q is a whiteout and cannot be a directory", part)
		}
		hidden := strings.TrimPrefix(part, whiteoutPrefix)
		if hidden == "" || hidden == "." || hidden == ".." {
			return entry{}, true, invalidf("whiteout of %q", hidden)
		}
		path = append(append([]string(nil), path[:i]...), hidden)
		return entry{kind: whiteout, path: path, node: tree.Whiteout()}, true, nil
	}
	return entry{}, false, nil
}

// maxFile is below what ext4 and an EROFS image can hold.
const maxFile = 8 << 40

func parseNode(h *tar.Header) (*tree.Node, error) {
	fileType, err := parseType(h)
	if err != nil {
		return nil, err
	}
	n := &tree.Node{Mode: fileType | uint32(h.Mode)&0o7777}
	if n.UID, err = parseID("uid", h.Uid); err != nil {
		return nil, err
	}
	if n.GID, err = parseID("gid", h.Gid); err != nil {
		return nil, err
	}
	n.Sec, n.Nsec = parseTime(h)
	switch fileType {
	case unix.S_IFREG:
		if n.Size = h.Size; n.Size < 0 || n.Size > maxFile {
			return nil, invalidf("size %d is out of range", h.Size)
		}
	case unix.S_IFLNK:
		if n.Target, err = parseTarget(h.Linkname); err != nil {
			return nil, err
		}
		n.Mode = fileType | 0o777 // Linux knows no other
	case unix.S_IFCHR, unix.S_IFBLK:
		if n.Major, n.Minor, err = parseDevice(h); err != nil {
			return nil, err
		}
	}
	n.Xattrs, err = parseXattrs(h, fileType)
	return n, err
}

func parseType(h *tar.Header) (uint32, error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return unix.S_IFREG, nil
	case tar.TypeDir:
		return unix.S_IFDIR, nil
	case tar.TypeSymlink:
		return unix.S_IFLNK, nil
	case tar.TypeChar:
		return unix.S_IFCHR, nil
	case tar.TypeBlock:
		return unix.S_IFBLK, nil
	case tar.TypeFifo:
		return unix.S_IFIFO, nil
	}
	return 0, invalidf("unknown type %q", h.Typeflag)
}

// parseID refuses what would be cut off to another, perhaps mightier, user. The
// largest number means "no change" to chown(2).
func parseID(what string, id int) (uint32, error) {
	if id < 0 || id >= math.MaxUint32 {
		return 0, invalidf("%s %d is out of range", what, id)
	}
	return uint32(id), nil
}

// parseTime moves times that ext4 cannot store to the nearest that it can, for
// both forms must show the same.
func parseTime(h *tar.Header) (sec int64, nsec uint32) {
	const first, last = math.MinInt32, 1<<34 - 1 + math.MinInt32
	switch sec = h.ModTime.Unix(); {
	case h.ModTime.IsZero():
		return 0, 0
	case sec < first:
		return first, 0
	case sec > last:
		return last, 0
	}
	return sec, uint32(h.ModTime.Nanosecond())
}

func parseTarget(target string) (string, error) {
	switch {
	case target == "":
		return "", invalidf("symbolic link to nothing")
	case len(target) >= unix.PathMax:
		return "", invalidf("symbolic link of %d bytes, at most %d are possible", len(target), unix.PathMax-1)
	case strings.IndexByte(target, 0) >= 0:
		return "", invalidf("symbolic link contains a NUL byte")
	}
	return target, nil
}

// parseDevice refuses numbers beyond the 12 and 20 bits that the kernel has:
// cut off, they would be another device.
func parseDevice(h *tar.Header) (major, minor uint32, err error) {
	if h.Devmajor < 0 || h.Devmajor > 1<<12-1 {
		return 0, 0, invalidf("device major %d is out of range", h.Devmajor)
	}
	if h.Devminor < 0 || h.Devminor > 1<<20-1 {
		return 0, 0, invalidf("device minor %d is out of range", h.Devminor)
	}
	return uint32(h.Devmajor), uint32(h.Devminor), nil
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}
