package disk

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// open opens a folder for reading. The name is one component, so nothing of
// the way there can be swapped; the last part is no link and no mount.
func open(dir int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// entry is one of a folder (struct linux_dirent64).
type entry struct {
	next int64 // offset of the entry behind it
	kind byte  // DT_*
	name string
}

// Where the parts of an entry are.
const (
	nextAt = 8
	sizeAt = 16
	kindAt = 18
	nameAt = 19
)

// parse takes the first entry off what getdents(2) gave.
func parse(data []byte) (entry, []byte, error) {
	if len(data) < nameAt {
		return entry{}, nil, errors.New("read a folder: an entry is cut off")
	}
	size := int(binary.NativeEndian.Uint16(data[sizeAt:]))
	if size < nameAt || size > len(data) {
		return entry{}, nil, errors.New("read a folder: an entry of no possible size")
	}
	name, _, _ := bytes.Cut(data[nameAt:size], []byte{0})
	return entry{
		next: int64(binary.NativeEndian.Uint64(data[nextAt:])),
		kind: data[kindAt],
		name: string(name),
	}, data[size:], nil
}
