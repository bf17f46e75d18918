// Package disk counts what a folder and all below it take on disk, slowly.
//
// A Pace says how much of its time a count may work. The folder belongs to
// somebody hostile who changes it meanwhile: everything is reached by
// descriptors below it, one of them open at a time, and the memory that a
// count takes does not grow with the number of files. The package knows
// nothing of containers.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// Pace keeps a count from being noticed: after Batch entries it rests for Rest
// times as long as they took. The zero Pace does not rest.
type Pace struct {
	Batch int
	Rest  int
}

// ErrMoved says that the tree was changed above the place where the count was.
// It begins anew another time.
var ErrMoved = errors.New("a folder was moved while it was counted")

// maxDepth is more than any path that a program can use.
const maxDepth = 1 << 16

// Count counts a folder with all in it: allocated bytes and inodes, a file
// with several names once. Other file systems mounted below are not entered.
// With an error comes what was counted by then: at least so much is there.
func Count(ctx context.Context, folder *os.File, pace Pace) (spec.DiskUsage, error) {
	c := &count{ctx: ctx, pace: pace, seen: map[uint64]struct{}{}, batchStart: time.Now()}
	at, err := open(int(folder.Fd()), ".")
	if err != nil {
		return spec.DiskUsage{}, err
	}
	c.at = at
	defer func() { unix.Close(c.at) }()
	if err := c.enter(); err != nil {
		return spec.DiskUsage{}, err
	}
	c.device = c.levels[0].device
	err = c.run()
	c.usage.At = time.Now()
	return c.usage, err
}

// count is one under way. It stands in the folder at and remembers of those
// above it who they are and how far they were read.
type count struct {
	ctx    context.Context
	pace   Pace
	usage  spec.DiskUsage
	device uint64
	at     int
	levels []level
	seen   map[uint64]struct{} // inodes with several names

	entries    int
	batchStart time.Time
	buffer     [16 << 10]byte
}

// level is a folder on the way from the top to where the count stands.
type level struct {
	device, inode uint64
	offset        int64 // where reading goes on
}

// run reads folders until the top one is read to its end.
func (c *count) run() error {
	for {
		entered, err := c.read()
		if err != nil {
			return err
		}
		if entered {
			continue
		}
		if len(c.levels) == 1 {
			return nil
		}
		if err := c.leave(); err != nil {
			return err
		}
	}
}

// read counts the entries of the present folder from where it was left, up to
// the next folder, which it enters, or the end.
func (c *count) read() (entered bool, err error) {
	here := &c.levels[len(c.levels)-1]
	if _, err := unix.Seek(c.at, here.offset, 0); err != nil {
		return false, fmt.Errorf("seek: %w", err)
	}
	for {
		n, err := unix.Getdents(c.at, c.buffer[:])
		if err != nil {
			if errors.Is(err, unix.ENOENT) {
				return false, nil // it was deleted
			}
			return false, fmt.Errorf("read a folder: %w", err)
		}
		if n == 0 {
			return false, nil
		}
		for data := c.buffer[:n]; len(data) > 0; {
			var e entry
			if e, data, err = parse(data); err != nil {
				return false, err
			}
			here.offset = e.next
			if e.name == "." || e.name == ".." {
				continue
			}
			if err := c.rest(); err != nil {
				return false, err
			}
			if entered, err = c.entry(e); entered || err != nil {
				return entered, err
			}
		}
	}
}

func (c *count) entry(e entry) (entered bool, err error) {
	if e.kind == unix.DT_DIR || e.kind == unix.DT_UNKNOWN {
		if entered, err := c.folder(e.name); entered || err != nil || e.kind == unix.DT_DIR {
			return entered, err
		}
	}
	return false, c.file(e.name)
}

// file counts something that is no folder, by its name in this one.
func (c *count) file(name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(c.at, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // deleted meanwhile
	case err != nil:
		return fmt.Errorf("look at a file: %w", err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR || uint64(st.Dev) != c.device:
		return nil // became one, or is mounted here
	case st.Nlink > 1 && !c.first(st.Ino):
		return nil
	}
	c.add(&st)
	return nil
}

// maxSeen bounds the memory for files with several names. Beyond it each name
// counts: too much rather than too little.
const maxSeen = 1 << 16

func (c *count) first(inode uint64) bool {
	if _, before := c.seen[inode]; before {
		return false
	}
	if len(c.seen) < maxSeen {
		c.seen[inode] = struct{}{}
	}
	return true
}

func (c *count) add(st *unix.Stat_t) {
	c.usage.Bytes += uint64(st.Blocks) * 512
	c.usage.Inodes++
}

// folder steps into a folder of the present one.
func (c *count) folder(name string) (entered bool, err error) {
	if len(c.levels) == maxDepth {
		return false, fmt.Errorf("more than %d folders in one another", maxDepth)
	}
	below, err := open(c.at, name)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return false, nil // deleted or replaced meanwhile, or another file system
	case err != nil:
		return false, fmt.Errorf("open a folder: %w", err)
	}
	above := c.at
	c.at = below
	if err := c.enter(); err != nil {
		unix.Close(above)
		return true, err
	}
	unix.Close(above)
	return true, nil
}

// enter counts the folder that is now the present one.
func (c *count) enter() error {
	var st unix.Stat_t
	if err := unix.Fstat(c.at, &st); err != nil {
		return err
	}
	c.add(&st)
	c.levels = append(c.levels, level{device: uint64(st.Dev), inode: st.Ino})
	return nil
}

// leave goes up, to the very folder from which the count came.
func (c *count) leave() error {
	c.levels = c.levels[:len(c.levels)-1]
	up, err := unix.Openat(c.at, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return ErrMoved // deleted with all in it
	}
	if err != nil {
		return fmt.Errorf("go up: %w", err)
	}
	unix.Close(c.at)
	c.at = up
	var st unix.Stat_t
	if err := unix.Fstat(up, &st); err != nil {
		return err
	}
	if above := c.levels[len(c.levels)-1]; uint64(st.Dev) != above.device || st.Ino != above.inode {
		return ErrMoved
	}
	return nil
}

// rest sleeps when a batch is done.
func (c *count) rest() error {
	c.entries++
	if c.pace.Batch == 0 || c.entries%c.pace.Batch != 0 {
		return c.ctx.Err()
	}
	pause := time.NewTimer(time.Duration(c.pace.Rest) * time.Since(c.batchStart))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-c.ctx.Done():
	}
	c.batchStart = time.Now()
	return c.ctx.Err()
}
