package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tarFolder packs a folder, in an order that is always the same. Like most
// backup programs it stays on one file system: a mount point in the folder
// comes out empty, for /proc of a running system is no part of an image.
func tarFolder(ctx context.Context, folder string, w io.Writer) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	p := &packer{ctx: ctx, root: root, to: tar.NewWriter(w), seen: map[inode]string{}}
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	p.device = info.Sys().(*syscall.Stat_t).Dev
	if err := p.folder("."); err != nil {
		return err
	}
	return p.to.Close()
}

// packer writes the entries below a root, which no name or link leads out of.
type packer struct {
	ctx    context.Context
	root   *os.Root
	to     *tar.Writer
	device uint64
	seen   map[inode]string // first name of files with several
}

type inode struct{ dev, ino uint64 }

func (p *packer) folder(name string) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	dir, err := p.root.Open(name)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := p.entry(path.Join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(name string) error {
	info, err := p.root.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	h := &tar.Header{
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
		Format:  tar.FormatPAX,
	}
	id := inode{st.Dev, st.Ino}
	if first, again := p.seen[id]; again {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return p.to.WriteHeader(h)
	}
	if st.Nlink > 1 && !info.IsDir() {
		p.seen[id] = name
	}
	switch info.Mode().Type() {
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		return p.file(h)
	case os.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if err := p.withAttributes(h, name); err != nil {
			return err
		}
		if st.Dev != p.device {
			return nil
		}
		return p.folder(name)
	case os.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = p.root.Readlink(name); err != nil {
			return err
		}
	case os.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case os.ModeDevice, os.ModeDevice | os.ModeCharDevice:
		h.Typeflag = tar.TypeBlock
		if info.Mode()&os.ModeCharDevice != 0 {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default: // a socket means nothing without the process behind it
		return nil
	}
	return p.to.WriteHeader(h)
}

func (p *packer) file(h *tar.Header) error {
	f, err := p.root.OpenFile(h.Name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := addAttributes(h, f); err != nil {
		return err
	}
	if err := p.to.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.Copy(p.to, readerWithContext{p.ctx, io.LimitReader(f, h.Size)}); err != nil || n < h.Size {
		if err == nil {
			err = fmt.Errorf("%d of %d bytes: it shrank", n, h.Size)
		}
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// withAttributes writes the header of a folder.
func (p *packer) withAttributes(h *tar.Header, name string) error {
	f, err := p.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := addAttributes(h, f); err != nil {
		return err
	}
	return p.to.WriteHeader(h)
}

// addAttributes adds the extended attributes that mean something in a
// container: capabilities of files, and what users set.
func addAttributes(h *tar.Header, f *os.File) error {
	fd := int(f.Fd())
	size, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) || (err == nil && size == 0) {
		return nil
	}
	list := make([]byte, max(size, 0))
	if err == nil {
		size, err = unix.Flistxattr(fd, list)
	}
	if err != nil {
		return fmt.Errorf("%s: attributes: %w", h.Name, err)
	}
	for _, name := range strings.Split(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's own limit
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return fmt.Errorf("%s: attribute %s: %w", h.Name, name, err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
	}
	return nil
}
