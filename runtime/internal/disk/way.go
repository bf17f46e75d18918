package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// way is the folders from the top to where a count stands. Only the last one is
// open; the others are opened again by their handles, for which it does not
// matter where they are by then. Without handles, which some file systems and
// daemons with few rights do not have, all of them stay open.
type way struct {
	levels  []level
	device  uint64 // of the top
	mount   int    // a descriptor on the file system; not ours
	handles bool
}

// level is a folder on the way.
type level struct {
	fd     int // -1 when it is closed
	handle unix.FileHandle
	offset int64 // where reading goes on
	known  bool  // an earlier sweep counted its files
}

// maxHeld is how deep a way without handles may be.
const maxHeld = 512

func newWay(top int) (*way, error) {
	var st unix.Stat_t
	if err := unix.Fstat(top, &st); err != nil {
		return nil, err
	}
	w := &way{device: uint64(st.Dev), mount: top}
	if handle, err := handleOf(top); err == nil {
		if fd, err := reopen(top, handle); err == nil {
			unix.Close(fd)
			w.handles = true
		}
	}
	return w, nil
}

func (w *way) depth() int   { return len(w.levels) }
func (w *way) here() *level { return &w.levels[len(w.levels)-1] }

// down makes a folder the last one. With an error it stays the caller's.
func (w *way) down(fd int, known bool) error {
	limit := maxHeld
	if w.handles {
		limit = maxDepth
	}
	if len(w.levels) == limit {
		return fmt.Errorf("more than %d folders in one another", limit)
	}
	next := level{fd: fd, known: known}
	if w.handles {
		var err error
		if next.handle, err = handleOf(fd); err != nil {
			return fmt.Errorf("handle of a folder: %w", err)
		}
		if len(w.levels) > 0 {
			w.close(w.here())
		}
	}
	w.levels = append(w.levels, next)
	return nil
}

// up drops the last folder, and those above it that were deleted meanwhile.
func (w *way) up() error {
	for {
		w.close(w.here())
		w.levels = w.levels[:len(w.levels)-1]
		if len(w.levels) == 0 || w.here().fd >= 0 {
			return nil
		}
		fd, err := reopen(w.mount, w.here().handle)
		if err == nil {
			w.here().fd = fd
			return nil
		}
		if !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("go up: %w", err)
		}
	}
}

func (w *way) close(l *level) {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

// clear lets go of what an end in the middle left open.
func (w *way) clear() {
	for i := range w.levels {
		w.close(&w.levels[i])
	}
	w.levels = w.levels[:0]
}

func handleOf(fd int) (unix.FileHandle, error) {
	handle, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	return handle, err
}

func reopen(mount int, handle unix.FileHandle) (int, error) {
	for {
		fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME|unix.O_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
