// Package powercut is a disk for tests whose power can be cut at any write.
//
// A Disk is a block device whose Content this process has in its memory: a loop
// device on a file of a file system in user space. It keeps a Log of all that is
// written to it and flushed. From the log, Replay makes what the disk may have
// when the power goes at a position of the log, and a Disk shows that.
//
// It works where the kernel has no device mapper: it needs loop devices and FUSE
// only. The package knows nothing of what is on a disk.
package powercut

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says what the kernel lacks for a disk.
type ErrUnsupported struct {
	Feature string
	Err     error
}

func (e *ErrUnsupported) Error() string {
	return fmt.Sprintf("kernel feature missing: %s: %v", e.Feature, e.Err)
}

func (e *ErrUnsupported) Unwrap() error { return e.Err }

// Disk is a block device. Close it, when nothing on it is mounted.
type Disk struct {
	fuse *os.File // the connection to the kernel
	file string   // where the file is mounted
	loop *os.File // frees the device when it is closed
	size int64
	done chan struct{} // closed when nothing is served any more

	mu      sync.Mutex
	content *Content
	log     *Log // nil: not kept
}

// New makes a disk. In dir, which has to be in a mount namespace of our own, it
// mounts a file.
func New(dir string, c *Content) (_ *Disk, err error) {
	d := &Disk{content: c, size: c.size(), file: filepath.Join(dir, "disk"), done: make(chan struct{})}
	if d.fuse, err = os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		return nil, &ErrUnsupported{"FUSE", err}
	}
	if err := d.mountFile(); err != nil {
		d.fuse.Close()
		return nil, fmt.Errorf("disk: %w", err)
	}
	go d.serve(int(d.fuse.Fd()))
	if d.loop, err = attach(d.file); err != nil {
		return nil, errors.Join(fmt.Errorf("disk: %w", err), d.unmountFile())
	}
	return d, nil
}

// Path is that of the block device.
func (d *Disk) Path() string { return d.loop.Name() }

// Close takes the device away.
func (d *Disk) Close() error { return errors.Join(d.loop.Close(), d.unmountFile()) }

// Record begins a log.
func (d *Disk) Record() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = &Log{start: d.content.flat()}
}

// Position is how many writes and flushes were done since Record.
func (d *Disk) Position() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log.entries)
}

// Recorded ends the log.
func (d *Disk) Recorded() *Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log
	d.log = nil
	return log
}

// Show gives the disk another content, of the same size. While something on it
// is mounted, in any namespace, that is EBUSY: the next mount would be that one.
func (d *Disk) Show(c *Content) error {
	alone, err := unix.Open(d.Path(), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("disk: have it alone: %w", err)
	}
	defer unix.Close(alone)
	d.mu.Lock()
	d.content = c
	d.mu.Unlock()
	// What somebody read of the content before may still be in the page cache.
	if err := unix.IoctlSetInt(int(d.loop.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("disk: empty its cache: %w", err)
	}
	return nil
}

func (d *Disk) read(offset int64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content.read(offset, p)
}

func (d *Disk) write(offset int64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content.write(offset, p)
	if d.log != nil {
		d.log.entries = append(d.log.entries, entry{offset, append([]byte{}, p...)})
	}
}

func (d *Disk) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.log != nil {
		d.log.entries = append(d.log.entries, entry{})
	}
}
