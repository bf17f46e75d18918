package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"cri-mini/image/layer/index"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ErrNoIndex says that a layer cannot be compared with what was written.
var ErrNoIndex = errors.New("not verifiable: unpacked by an older version")

// Difference is one thing of a layer that is not as it was written.
type Difference struct {
	Path string // from the root of the layer; empty if it is not about one
	What string
}

func (d Difference) String() string {
	if d.Path == "" {
		return d.What
	}
	return fmt.Sprintf("%q: %s", d.Path, d.What)
}

func (s *store) Verify(ctx context.Context, id digest.Digest, found func(Difference)) error {
	s.mu.Lock()
	_, known := s.layers[id]
	s.mu.Unlock()
	if !known {
		return fmt.Errorf("layer %.80q: %w", id, ErrNotFound)
	}
	folder, err := os.OpenFile(s.path(layersDir, folderName(id)), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == nil {
		defer folder.Close()
		err = s.verifyFolder(ctx, folder, found)
	}
	if err != nil {
		return fmt.Errorf("verify layer %s: %w", id, err)
	}
	return nil
}

// verifyFolder compares the payload in a folder with the index beside it.
func (s *store) verifyFolder(ctx context.Context, folder *os.File, found func(Difference)) error {
	x, err := readIndex(folder)
	switch {
	case errors.Is(err, unix.ENOENT):
		return ErrNoIndex
	case errors.Is(err, index.ErrDamaged) || isDamage(err):
		found(Difference{What: err.Error()})
		return nil
	case err != nil:
		return err
	}
	return s.compare(ctx, folder, x, found)
}

func readIndex(folder *os.File) (index.Index, error) {
	fd, err := unix.Openat2(int(folder.Fd()), indexFile, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return index.Index{}, wrap("open index", err)
	}
	f := os.NewFile(uintptr(fd), indexFile)
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return index.Index{}, wrap("read index", err)
	}
	return index.Decode(data)
}

// isDamage tells an error that comes of what is on the disk from one of this
// process or of the whole machine.
func isDamage(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EINTR, unix.EPERM, unix.EACCES, unix.ENOSYS:
		return false
	}
	return true
}
