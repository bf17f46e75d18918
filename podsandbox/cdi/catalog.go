package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// Catalog is the spec files in some folders. It is safe for concurrent use.
type Catalog struct {
	folders []string // the later beats the earlier
	log     *slog.Logger

	mu    sync.Mutex // guards what follows
	files map[string]*entry
}

// entry is a file, read once by who needs it first. Only who needs it as well
// waits for that.
type entry struct {
	stamp stamp
	once  sync.Once
	file  *file
	err   error
}

// stamp tells whether a file has changed since it was read.
type stamp struct {
	device, inode uint64
	size          int64
	mtime, ctime  unix.Timespec
}

// New is a catalog of folders, of which none has to exist.
func New(folders []string, log *slog.Logger) *Catalog {
	return &Catalog{folders: folders, log: log, files: map[string]*entry{}}
}

// Edits are what a container needs to use some devices.
type Edits struct {
	Env     []string
	Devices []spec.Device
	Mounts  []spec.Mount
	Groups  []uint32
}

func (e *Edits) add(more Edits) {
	e.Env = append(e.Env, more.Env...)
	e.Devices = append(e.Devices, more.Devices...)
	e.Mounts = append(e.Mounts, more.Mounts...)
	e.Groups = append(e.Groups, more.Groups...)
}

// Error is a device that cannot be had.
type Error struct {
	Index  int // in the list that was asked for
	Name   string
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("CDI device %q: %s", e.Name, e.Reason) }

// Find gives the edits for devices by their full names, vendor/class=name.
// What a file says for all its devices comes once, before the first of them.
func (c *Catalog) Find(names []string) (Edits, error) {
	var all Edits
	if len(names) == 0 {
		return all, nil
	}
	files, broken := c.read()
	done := map[string]bool{}
	for i, name := range names {
		bad := func(err error) (Edits, error) {
			return Edits{}, &Error{Index: i, Name: name, Reason: err.Error()}
		}
		kind, device, err := splitName(name)
		if err != nil {
			return bad(err)
		}
		f, err := c.choose(files, broken, kind, device)
		if err != nil {
			return bad(err)
		}
		parts := map[string]part{f.path: f.common, name: f.devices[device]}
		for _, key := range []string{f.path, name} {
			if done[key] {
				continue
			}
			done[key] = true
			edits, err := parts[key].edits()
			if err != nil {
				return bad(fmt.Errorf("%s: %w", f.path, err))
			}
			all.add(edits)
		}
	}
	return all, nil
}

// choose takes the file of the last folder that has the device.
func (c *Catalog) choose(files [][]*file, broken []error, kind, device string) (*file, error) {
	for i := len(files) - 1; i >= 0; i-- {
		var found *file
		for _, f := range files[i] {
			if _, has := f.devices[device]; !has || f.kind != kind {
				continue
			}
			if found != nil {
				return nil, fmt.Errorf("both %s and %s describe it", found.path, f.path)
			}
			found = f
		}
		if found != nil {
			return found, nil
		}
	}
	text := "no spec file describes it; looked in " + strings.Join(c.folders, ", ")
	if len(c.folders) == 0 {
		text = "CDI is switched off: no folder with spec files is configured"
	}
	for _, err := range broken {
		text += "; not usable: " + err.Error()
	}
	return nil, errors.New(text)
}

// read brings the catalog up to date: the files of each folder, and what is
// wrong with others. One bad file must not take away everybody's devices.
func (c *Catalog) read() (files [][]*file, broken []error) {
	seen := map[string]bool{}
	for _, folder := range c.folders {
		var here []*file
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			broken = append(broken, err)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext != ".json" && ext != ".yaml" {
				continue
			}
			path := filepath.Join(folder, e.Name())
			f, err := c.load(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			seen[path] = true
			if err != nil {
				broken = append(broken, err)
				continue
			}
			here = append(here, f)
		}
		files = append(files, here)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.files, func(path string, _ *entry) bool { return !seen[path] })
	return files, broken
}

// load reads a file unless it is the one that was read before.
func (c *Catalog) load(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would keep us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	e := c.entry(path, stamp{device: st.Dev, inode: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim})
	e.once.Do(func() {
		var text []byte
		if text, e.err = readAll(f, &st); e.err == nil {
			e.file, e.err = parse(path, text)
		}
		if e.err != nil {
			c.log.Warn("a spec file for devices is not usable", "err", e.err)
		}
	})
	return e.file, e.err
}

// entry is the one of what is at a path now.
func (c *Catalog) entry(path string, now stamp) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.files[path]; e != nil && e.stamp == now {
		return e
	}
	e := &entry{stamp: now}
	c.files[path] = e
	return e
}

// maxFile is far more than a machine full of devices needs, and bounds with the
// decoder's own limit of depth what a file costs us.
const maxFile = 1 << 20

// readAll reads a regular file.
func readAll(f *os.File, st *unix.Stat_t) ([]byte, error) {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s: is not a regular file", f.Name())
	case st.Size > maxFile:
		return nil, fmt.Errorf("%s: is larger than %d bytes", f.Name(), maxFile)
	}
	text := make([]byte, st.Size)
	n, err := f.ReadAt(text, 0)
	if err != nil && n < len(text) {
		return nil, err
	}
	return text, nil
}
