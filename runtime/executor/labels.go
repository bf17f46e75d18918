package executor

import (
	"context"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/selinux"
)

// labelled adds the SELinux label of a file system's files to its options.
func labelled(label string, options ...mount.Option) []mount.Option {
	if label != "" {
		options = append(options, mount.Option{Key: "context", Value: label})
	}
	return options
}

// relabel gives what a mount shows a label. The path is only asked whether it
// is one of the node's own; then the mount is walked, which nobody can exchange.
func relabel(ctx context.Context, tree *mount.Tree, path, label string) error {
	place, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer place.Close()
	found, err := place.Stat()
	if err != nil {
		return err
	}
	shown, err := tree.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(found, shown) {
		return errors.New("it was exchanged for another while it was mounted")
	}
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(number(place)))
	if err != nil {
		return err
	}
	if err := selinux.Allowed(real); err != nil {
		return err
	}
	return selinux.Relabel(ctx, tree.File, label)
}
