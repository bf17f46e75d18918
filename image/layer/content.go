package layer

import (
	"context"
	"errors"
	"unsafe"

	"cri-mini/image/layer/index"

	"golang.org/x/sys/unix"
)

// errCutOff says that a file ends before it should.
var errCutOff = errors.New("is cut off")

const contentBuffer = 1 << 20

// content reads files as they are on the disk: the page cache may still have
// what the disk has lost, and a running container's pages are not pushed out.
// Its buffer lies where direct reading wants it.
type content struct{ buffer []byte }

func newContent() *content {
	b := make([]byte, contentBuffer+pageSize)
	skip := -uintptr(unsafe.Pointer(&b[0])) % pageSize
	return &content{b[skip : skip+contentBuffer]}
}

// open opens the file that path leads to, which is a name in /proc/self/fd or
// one below at.
func (c *content) open(at int, path string, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_DIRECT | unix.O_CLOEXEC, Resolve: resolve}
	fd, err := unix.Openat2(at, path, &how)
	if err == unix.EINVAL { // a file system without direct reading
		how.Flags &^= unix.O_DIRECT
		fd, err = unix.Openat2(at, path, &how)
	}
	return fd, err
}

// read reads size bytes from an offset, both of blocks, and gives take each
// piece with where it begins.
func (c *content) read(ctx context.Context, fd int, offset, size int64, take func(at int64, piece []byte)) error {
	for done := int64(0); done < size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := unix.Pread(fd, c.buffer, offset+done)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EINVAL && buffered(fd):
			continue
		case err != nil:
			return err
		case n == 0:
			return errCutOff
		}
		n = int(min(int64(n), size-done))
		take(done, c.buffer[:n])
		done += int64(n)
		if n%pageSize != 0 && done < size {
			return errCutOff // the file ends here, for pieces are of whole blocks
		}
	}
	return nil
}

// buffered gives up direct reading, if that was tried.
func buffered(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_DIRECT == 0 {
		return false
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT)
	return err == nil
}

// sum is the sum of what read gives.
func (c *content) sum(ctx context.Context, fd int, offset, size int64) (sum uint32, err error) {
	err = c.read(ctx, fd, offset, size, func(_ int64, piece []byte) { sum = index.Sum(sum, piece) })
	return sum, err
}
