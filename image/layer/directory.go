package layer

import (
	"fmt"
	"io"

	"cri-mini/image/layer/index"
	"cri-mini/image/layer/tree"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Parents are opened below the root of the layer and through no link of any
// kind. The tree gives only such paths, and nobody else can write here; should
// either be wrong, the kernel refuses and nothing outside the layer is touched.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

const pageSize = 4096

// directoryBuilder unpacks a layer into a directory. All work is relative to
// the descriptor of the parent, on names that have just been made and that are
// never followed.
type directoryBuilder struct {
	root   int
	parent *tree.Node // the directory used last, and its descriptor
	fd     int
	buf    []byte
	size   uint64
}

func newDirectoryBuilder(path string) (*directoryBuilder, error) {
	if err := unix.Mkdir(path, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &directoryBuilder{root: fd, fd: -1, buf: make([]byte, 128<<10), size: pageSize}, nil
}

func (b *directoryBuilder) close() error {
	b.forget()
	return unix.Close(b.root)
}

// forget closes the descriptor kept of the directory used last.
func (b *directoryBuilder) forget() {
	if b.fd >= 0 {
		unix.Close(b.fd)
	}
	b.parent, b.fd = nil, -1
}

func (b *directoryBuilder) open(dir *tree.Node) (int, error) {
	if b.parent == dir {
		return b.fd, nil
	}
	fd, err := b.openFresh(dir)
	if err != nil {
		return -1, err
	}
	b.forget()
	b.parent, b.fd = dir, fd
	return fd, nil
}

func (b *directoryBuilder) openFresh(dir *tree.Node) (int, error) {
	path := dir.Path()
	fd, err := unix.Openat2(b.root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: beneath,
	})
	if err != nil {
		return -1, fmt.Errorf("open directory %q: %w", path, err)
	}
	return fd, nil
}

func (b *directoryBuilder) create(dir *tree.Node, name string, n *tree.Node) error {
	parent, err := b.open(dir)
	if err != nil {
		return err
	}
	switch n.Type() {
	case unix.S_IFDIR:
		b.size += pageSize
		return wrap("make directory", unix.Mkdirat(parent, name, 0o700))
	case unix.S_IFLNK:
		if err := unix.Symlinkat(n.Target, parent, name); err != nil {
			return wrap("make symbolic link", err)
		}
	default:
		device := unix.Mkdev(n.Major, n.Minor)
		if err := unix.Mknodat(parent, name, n.Type(), int(device)); err != nil {
			return wrap("make device or pipe", err)
		}
	}
	if n.IsWhiteout() {
		return nil // only its being there matters
	}
	return describeSpecial(parent, name, n)
}

func (b *directoryBuilder) link(dir *tree.Node, name string, oldDir *tree.Node, oldName string) error {
	from, err := b.openFresh(oldDir)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := b.open(dir)
	if err != nil {
		return err
	}
	return wrap("make hard link", unix.Linkat(from, oldName, to, name, 0)) // 0: a symbolic link is linked, not followed
}

func (b *directoryBuilder) remove(dir *tree.Node, name string, old *tree.Node) error {
	parent, err := b.openFresh(dir)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	b.forget() // it may be what we remove
	return wrap("remove what was here", removeAll(parent, name, old))
}

// removeAll needs no listing: the tree knows what is there.
func removeAll(parent int, name string, n *tree.Node) error {
	if !n.IsDir() {
		return unix.Unlinkat(parent, name, 0)
	}
	if n.Len() > 0 {
		fd, err := openChild(parent, name)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for name, child := range n.Children() {
			if err := removeAll(fd, name, child); err != nil {
				return err
			}
		}
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

func openChild(parent int, name string) (int, error) {
	return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (b *directoryBuilder) file(dir *tree.Node, name string, n *tree.Node, content io.Reader, sparse bool) error {
	parent, err := b.open(dir)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return wrap("make file", err)
	}
	defer unix.Close(fd)
	if err := b.write(fd, n, content, sparse); err != nil {
		return err
	}
	return describe(fd, n)
}

func (b *directoryBuilder) write(fd int, n *tree.Node, content io.Reader, sparse bool) error {
	var written int64
	for offset := int64(0); offset < n.Size; {
		chunk := b.buf[:min(int64(len(b.buf)), n.Size-offset)]
		if _, err := io.ReadFull(content, chunk); err != nil {
			return wrap("read content", err)
		}
		if !sparse || !isZero(chunk) {
			if err := pwrite(fd, chunk, offset); err != nil {
				return wrap("write content", err)
			}
			written += int64(len(chunk))
		}
		offset += int64(len(chunk))
	}
	b.size += uint64(written+pageSize-1) &^ (pageSize - 1)
	if sparse {
		return wrap("set size", unix.Ftruncate(fd, n.Size))
	}
	return nil
}

func pwrite(fd int, p []byte, offset int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

func (b *directoryBuilder) finish(root *tree.Node, _ digest.Digest) (uint64, index.File, error) {
	b.forget()
	return b.size, index.File{}, finishDirectory(b.root, root)
}

// finishDirectory gives all directories their attributes, when nothing is made
// in them any more.
func finishDirectory(fd int, dir *tree.Node) error {
	for name, child := range dir.Children() {
		if !child.IsDir() {
			continue
		}
		childFD, err := openChild(fd, name)
		if err == nil {
			err = finishDirectory(childFD, child)
			unix.Close(childFD)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if dir.Opaque {
		if err := unix.Fsetxattr(fd, overlayOpaque, []byte("y"), 0); err != nil {
			return wrap("mark opaque", err)
		}
	}
	return describe(fd, dir)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
