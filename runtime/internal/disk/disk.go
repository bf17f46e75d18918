// Package disk counts what a folder and all below it take on disk, slowly.
//
// A Pace says how much of its time a count may work. The folder belongs to
// somebody hostile who changes it meanwhile: everything is reached by
// descriptors below it, one of them open at a time, and the memory that a
// count takes does not grow with the number of files. Folders that are moved
// end no count: the way back is by handles, not by "..", and what was moved
// away from where the count was going is looked for again. The package knows
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

// maxDepth is more than any path that a program can use.
const maxDepth = 1 << 16

// maxSweeps is how often a folder is gone through for one count.
const maxSweeps = 4

// Count counts a folder with all in it: allocated bytes and inodes, a file
// with several names once. Other file systems mounted below are not entered.
// With an error comes what was counted by then: at least so much is there.
//
// A folder that somebody moves to and fro may be missed. When any was changed
// meanwhile, the tree is gone through again, for the folders alone that are
// new, which looks at no file of the others.
func Count(ctx context.Context, folder *os.File, pace Pace) (spec.DiskUsage, error) {
	c, err := newCount(ctx, int(folder.Fd()), pace)
	if err != nil {
		return spec.DiskUsage{}, err
	}
	err = c.all(int(folder.Fd()))
	c.usage.At = time.Now()
	return c.usage, err
}

func newCount(ctx context.Context, top int, pace Pace) (*count, error) {
	way, err := newWay(top)
	now := time.Now()
	return &count{
		ctx: ctx, pace: pace, way: way,
		batchStart: now, began: now.Add(-coarse),
		files: map[inode]struct{}{}, folders: map[inode]int{},
	}, err
}

// all sweeps until nothing new is found.
func (c *count) all(top int) error {
	for ; c.sweep < maxSweeps; c.sweep++ {
		c.fresh, c.changed = 0, false
		if err := c.run(top); err != nil {
			return err
		}
		// Without all folders in memory those seen before would count again.
		if !c.changed || len(c.folders) == maxSeen || c.sweep > 0 && c.fresh == 0 {
			break
		}
	}
	return nil
}

// coarse is more than what the times of files lag behind the clock.
const coarse = 20 * time.Millisecond

// count is one under way.
type count struct {
	ctx   context.Context
	pace  Pace
	usage spec.DiskUsage
	way   *way

	sweep   int
	fresh   int  // folders that this sweep found first
	changed bool // a folder, since the count began
	began   time.Time

	files   map[inode]struct{} // with several names
	folders map[inode]int      // the sweep that was there last

	entries    int
	batchStart time.Time
	buffer     [16 << 10]byte
}

// inode is who a file is.
type inode struct{ device, number uint64 }

// run reads folders until the top one is read to its end.
func (c *count) run(top int) error {
	defer c.way.clear()
	if _, err := c.enter(top, "."); err != nil {
		return err
	}
	for c.way.depth() > 0 {
		entered, err := c.read()
		if err != nil {
			return err
		}
		if entered {
			continue
		}
		if err := c.leave(); err != nil {
			return err
		}
	}
	return nil
}

// read counts the entries of the present folder from where it was left, up to
// the next folder, which it enters, or the end.
func (c *count) read() (entered bool, err error) {
	here := c.way.here()
	if _, err := unix.Seek(here.fd, here.offset, 0); err != nil {
		return false, fmt.Errorf("seek: %w", err)
	}
	for {
		n, err := unix.Getdents(here.fd, c.buffer[:])
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
		if entered, err := c.enter(c.way.here().fd, e.name); entered || err != nil || e.kind == unix.DT_DIR {
			return entered, err
		}
	}
	if c.way.here().known {
		return false, nil
	}
	return false, c.file(e.name)
}

// file counts something that is no folder, by its name in this one.
func (c *count) file(name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(c.way.here().fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // deleted meanwhile
	case err != nil:
		return fmt.Errorf("look at a file: %w", err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR || uint64(st.Dev) != c.way.device:
		return nil // became one, or is mounted here
	case st.Nlink > 1 && !c.first(inode{uint64(st.Dev), st.Ino}):
		return nil
	}
	c.add(&st)
	return nil
}

// maxSeen bounds the memory for files with several names, and for folders.
// Beyond it each name counts: too much rather than too little.
const maxSeen = 1 << 16

func (c *count) first(who inode) bool {
	if _, before := c.files[who]; before {
		return false
	}
	if len(c.files) < maxSeen {
		c.files[who] = struct{}{}
	}
	return true
}

func (c *count) add(st *unix.Stat_t) {
	c.usage.Bytes += uint64(st.Blocks) * 512
	c.usage.Inodes++
}

// enter steps into a folder below another one, unless this sweep was there
// already: a folder that is moved ahead of us would never end.
func (c *count) enter(above int, name string) (entered bool, err error) {
	fd, err := open(above, name)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return false, nil // deleted or replaced meanwhile, or another file system
	case err != nil:
		return false, fmt.Errorf("open a folder: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return false, err
	}
	who := inode{uint64(st.Dev), st.Ino}
	last, known := c.folders[who]
	if known && last == c.sweep {
		unix.Close(fd)
		return false, nil
	}
	if err := c.way.down(fd, known); err != nil {
		unix.Close(fd)
		return false, err
	}
	if known || len(c.folders) < maxSeen {
		c.folders[who] = c.sweep
	}
	if !known {
		c.fresh++
		c.add(&st)
	}
	return true, nil
}

// leave goes up to the folder from which the count came, wherever it is now.
func (c *count) leave() error {
	var st unix.Stat_t
	if err := unix.Fstat(c.way.here().fd, &st); err != nil {
		return err
	}
	if time.Unix(st.Mtim.Unix()).After(c.began) {
		c.changed = true
	}
	return c.way.up()
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
