package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/internal/hostpath"
	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spec"
)

// mounts makes what the container asked for, each one detached, and tells
// which are folders.
func (e *Executor) mounts(ctx context.Context, s spec.Container, made files) (folders []bool, err error) {
	for i, m := range s.Mounts {
		tree, folder, err := e.mount(ctx, m, s)
		if err != nil && m.Kind == spec.ImageMount {
			return nil, &spec.VolumeError{Err: fmt.Errorf("mount %s: %w", m.Target, err)}
		}
		if wrong := (*spec.InputError)(nil); errors.As(err, &wrong) {
			return nil, wrong
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		made["mount"+strconv.Itoa(i)] = tree.File
		folders = append(folders, folder)
	}
	return folders, nil
}

func (e *Executor) mount(ctx context.Context, m spec.Mount, s spec.Container) (tree *mount.Tree, folder bool, err error) {
	switch m.Kind {
	case spec.BindMount:
		tree, folder, err = e.bind(ctx, m, s.Rootfs.Label)
	case spec.ImageMount:
		tree, err = e.imageVolume(m, s)
	case spec.TmpfsMount:
		tree, err = tmpfs(m, s.Rootfs)
	default:
		err = fmt.Errorf("kind %q", m.Kind)
	}
	if err != nil {
		return nil, false, err
	}
	err = e.dress(tree, m)
	if err == nil && m.Kind != spec.BindMount {
		folder, err = tree.IsFolder()
	}
	if err != nil {
		tree.Close()
		return nil, false, err
	}
	return tree, folder, nil
}

// tmpfs belongs to the root of the container.
func tmpfs(m spec.Mount, root spec.Rootfs) (*mount.Tree, error) {
	options := labelled(root.Label, mount.Option{Key: "mode", Value: strconv.FormatUint(uint64(cmp.Or(m.Mode, 0o1777)), 8)})
	if m.Size > 0 {
		options = append(options, mount.Option{Key: "size", Value: strconv.FormatInt(m.Size, 10)})
	}
	if root.IDs != nil {
		owner := strconv.FormatUint(uint64(root.IDs.Host), 10)
		options = append(options, mount.Option{Key: "uid", Value: owner}, mount.Option{Key: "gid", Value: owner})
	}
	return mount.New("tmpfs", 0, options...)
}

// bind clones a path of the host, and tells whether it is a folder. The path may
// be on a server that does not answer; then only this call gives up.
func (e *Executor) bind(ctx context.Context, m spec.Mount, label string) (*mount.Tree, bool, error) {
	type bound struct {
		tree   *mount.Tree
		folder bool
	}
	b, err := hostpath.Ask(ctx, "mount "+m.Target+": host path", m.Source, func() (b bound, err error) {
		if err := checkPropagation(m); err != nil {
			return b, err
		}
		if b.tree, err = mount.Bind(m.Source, !m.Alone); err != nil {
			return b, err
		}
		b.folder, err = b.tree.IsFolder()
		if err == nil && m.Relabel && label != "" {
			err = relabel(ctx, b.tree, m.Source, label)
		}
		if err != nil {
			b.tree.Close()
		}
		return b, err
	}, func(b bound) { b.tree.Close() })
	if err != nil {
		return nil, false, wrongMount(m, err)
	}
	return b.tree, b.folder, nil
}

func wrongMount(m spec.Mount, err error) error {
	if wrong := (*spec.InputError)(nil); errors.As(err, &wrong) {
		return err
	}
	return &spec.InputError{Part: spec.InputMount, Name: m.Target, Value: m.Source, Err: err}
}

// dress gives a mount its attributes while nobody can see it yet.
func (e *Executor) dress(tree *mount.Tree, m spec.Mount) error {
	if m.IDs != nil && m.Kind != spec.ImageMount { // an overlay cannot be mapped; its layers are
		users, err := e.userNS(*m.IDs)
		if err != nil {
			return err
		}
		defer users.Close()
		if err := tree.MapIDs(users); err != nil {
			return err
		}
	}
	if m.Kind == spec.BindMount {
		if err := tree.Propagate(m.Propagation); err != nil {
			return fmt.Errorf("propagation %s: %w", m.Propagation, err)
		}
	}
	var attributes uint64
	for _, a := range []struct {
		set bool
		bit uint64
	}{{m.ReadOnly, unix.MOUNT_ATTR_RDONLY}, {m.NoExec, unix.MOUNT_ATTR_NOEXEC}, {m.NoDev, unix.MOUNT_ATTR_NODEV}, {m.NoSuid, unix.MOUNT_ATTR_NOSUID}} {
		if a.set {
			attributes |= a.bit
		}
	}
	if attributes != 0 {
		if err := tree.Set(attributes, false); err != nil {
			return fmt.Errorf("mount options: %w", err)
		}
	}
	if m.RecursiveReadOnly {
		if err := tree.Set(unix.MOUNT_ATTR_RDONLY, true); err != nil {
			return fmt.Errorf("recursive read-only: %w", err)
		}
	}
	return nil
}

// imageVolume shows an image, or a part of it, read-only. The empty folder
// below the layers lets overlayfs hide what they delete also where there is
// only one.
func (e *Executor) imageVolume(m spec.Mount, s spec.Container) (*mount.Tree, error) {
	empty := filepath.Join(s.Rootfs.Writable, "empty")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		return nil, err
	}
	layers := append([]spec.Layer{{Path: empty, Form: spec.DirectoryLayer}}, m.Layers...)
	tree, err := e.stack(layers, nil, nil, m.IDs, s.Rootfs.Label)
	if err != nil {
		return nil, err
	}
	sub := strings.Trim(m.SubPath, "/")
	if sub == "" {
		return tree, nil
	}
	defer tree.Close()
	part, err := tree.Open(sub, unix.O_PATH)
	if err != nil {
		return nil, &spec.InputError{Part: spec.InputSubPath, Name: m.Target, Value: m.SubPath, Err: errors.Unwrap(err)}
	}
	defer part.Close()
	return mount.CloneFile(part)
}

// checkPropagation refuses what the kernel would silently not do: mounts pass
// on only from a mount that is shared itself.
func checkPropagation(m spec.Mount) error {
	if m.Propagation == spec.Private || m.Propagation == "" {
		return nil
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, m.Source, 0, unix.STATX_MNT_ID, &st); err != nil {
		return wrongMount(m, err)
	}
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 7 || fields[0] != strconv.FormatUint(st.Mnt_id, 10) {
			continue
		}
		for _, option := range fields[6:] {
			if option == "-" {
				break
			}
			if strings.HasPrefix(option, "shared:") || m.Propagation == spec.HostToContainer && strings.HasPrefix(option, "master:") {
				return nil
			}
		}
		return &spec.InputError{Part: spec.InputPropagation, Name: m.Target, Value: m.Source, Err: fmt.Errorf("is on the mount %s, which is not shared", fields[4])}
	}
	return fmt.Errorf("propagation %s: the mount of host path %s was not found", m.Propagation, m.Source)
}
