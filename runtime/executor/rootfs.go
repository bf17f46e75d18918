package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spec"
)

// MountRootfs mounts the layers of a container below its writable layer.
func (e *Executor) MountRootfs(_ context.Context, id string, r spec.Rootfs) (spec.MountedRoot, error) {
	c := e.container(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rootfs == nil {
		tree, err := e.mountRootfs(r)
		if err != nil {
			return nil, fmt.Errorf("root file system: %w", err)
		}
		c.rootfs = tree
	}
	return &mountedRoot{c.rootfs}, nil
}

func (e *Executor) mountRootfs(r spec.Rootfs) (*mount.Tree, error) {
	if err := makeWritable(r); err != nil {
		return nil, fmt.Errorf("writable layer: %w", err)
	}
	base, err := os.OpenFile(r.Writable, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	tree := &mount.Tree{File: base}
	upper, err := tree.Open("upper", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	work, err := tree.Open("work", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer work.Close()
	// The layers are id-mapped, the writable layer is not: it belongs to this
	// pod alone and keeps the node's ids.
	return e.stack(r.Layers, upper, work, r.IDs, r.Label)
}

// makeWritable makes the folders of the writable layer. The work folder is
// made anew each time: overlayfs marks it when mounted volatile and refuses it
// later, since it cannot know that nothing was lost.
func makeWritable(r spec.Rootfs) error {
	if err := os.MkdirAll(filepath.Join(r.Writable, "upper"), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(r.Writable, "work")); err != nil {
		return err
	}
	return os.Mkdir(filepath.Join(r.Writable, "work"), 0o700)
}

// mountedRoot gives access to a root file system before its container runs.
type mountedRoot struct{ tree *mount.Tree }

// ReadFile reads a regular file. What an image calls /etc/passwd may be a
// link, a FIFO, endless, or a device of the host that obeys already when it is
// opened, as a watchdog does: first it is only looked at.
func (m *mountedRoot) ReadFile(name string, limit int64) ([]byte, error) {
	place, err := m.tree.Open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	info, err := place.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", number(place)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, &os.PathError{Op: "read", Path: name, Err: fmt.Errorf("more than %d bytes", limit)}
	}
	return data, err
}

// Close does nothing: the mount belongs to the container.
func (m *mountedRoot) Close() error { return nil }
