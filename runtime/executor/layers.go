package executor

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spec"
)

// layerMounts are the mounts of layers that are files, one for each, shared
// by all containers: every mount of the same file would cache it again.
type layerMounts struct {
	mu     sync.Mutex // guards mounts
	mounts map[string]layerMount
}

// layerMount is a mount and the file that it is of: a repair may put another
// one under the same name.
type layerMount struct {
	tree *mount.Tree
	file os.FileInfo
}

// open gives a descriptor of a layer's root, the caller's.
func (l *layerMounts) open(layer spec.Layer) (*os.File, error) {
	if layer.Form != spec.ErofsLayer {
		f, err := os.OpenFile(layer.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fmt.Errorf("layer: %w", err)
		}
		return f, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.Lstat(layer.Path)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	known, found := l.mounts[layer.Path]
	if found && os.SameFile(known.file, file) {
		return dup(known.tree.File)
	}
	tree, err := mount.Erofs(layer.Path)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", layer.Path, err)
	}
	if found {
		known.tree.Close()
	}
	if l.mounts == nil {
		l.mounts = map[string]layerMount{}
	}
	l.mounts[layer.Path] = layerMount{tree, file}
	return dup(tree.File)
}

// sweep lets go of layers whose files have been removed; their space on disk
// is free only after that.
func (l *layerMounts) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for path, known := range l.mounts {
		file, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(known.file, file) {
			known.tree.Close()
			delete(l.mounts, path)
		}
	}
}

func (l *layerMounts) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, known := range l.mounts {
		known.tree.Close()
	}
	l.mounts = nil
}

// stack mounts layers over each other, bottom first, below a writable layer
// or, without one, read-only. With a mapping the files show its ids.
func (e *Executor) stack(layers []spec.Layer, upper, work *os.File, ids *spec.IDMapping, label string) (*mount.Tree, error) {
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	for i, layer := range layers {
		f, err := e.layers.open(layer)
		if err != nil {
			return nil, err
		}
		opened = append(opened, f)
		if i == len(layers)-1 && upper != nil {
			if err := likeRoot(upper, f, ids); err != nil {
				return nil, fmt.Errorf("writable layer: %w", err)
			}
		}
		if ids != nil {
			mapped, err := e.mapped(f, *ids)
			if err != nil {
				return nil, err
			}
			opened[len(opened)-1] = mapped
			f.Close()
		}
	}
	return mount.Overlay(opened, upper, work, labelled(label)...)
}

// likeRoot gives the upper folder, which becomes the container's /, the mode
// and owner of the topmost layer's.
func likeRoot(upper, layer *os.File, ids *spec.IDMapping) error {
	var st unix.Stat_t
	if err := unix.Fstat(number(layer), &st); err != nil {
		return err
	}
	if ids != nil {
		st.Uid, st.Gid = st.Uid+ids.Host, st.Gid+ids.Host
	}
	// By way of /proc, for the descriptor is only a place (O_PATH).
	name := fmt.Sprintf("/proc/self/fd/%d", number(upper))
	if err := os.Chown(name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(name, st.Mode&0o7777)
}

// mapped is an id-mapped view of an open folder.
func (e *Executor) mapped(f *os.File, ids spec.IDMapping) (*os.File, error) {
	users, err := e.userNS(ids)
	if err != nil {
		return nil, err
	}
	defer users.Close()
	tree, err := mount.CloneFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if err := tree.MapIDs(users); err != nil {
		tree.Close()
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return tree.File, nil
}
