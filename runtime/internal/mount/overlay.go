package mount

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Overlay stacks layers, bottom first, with an upper folder on top. Without
// one the result is read-only.
func Overlay(layers []*os.File, upper, work *os.File, more ...Option) (*Tree, error) {
	options := more
	for i := len(layers) - 1; i >= 0; i-- {
		options = append(options, Option{Key: "lowerdir+", File: layers[i]})
	}
	if upper != nil {
		options = append(options,
			Option{Key: "upperdir", File: upper}, Option{Key: "workdir", File: work},
			// A writable layer does not outlive the node's boot, so nothing
			// has to reach the disk: without this an unmount flushes it all.
			Option{Key: "volatile", Flag: true})
	}
	tree, err := New("overlay", 0, options...)
	// Older kernels want strings. A descriptor that is none would be our fault.
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.EOPNOTSUPP) {
		if _, bad := layers[len(layers)-1].Stat(); bad == nil {
			return nil, &Unsupported{"overlayfs on descriptors (Linux 6.13)"}
		}
	}
	return tree, err
}

// Erofs mounts a layer that is one file. The mount has to be shared by all
// who use the layer, for each one caches on its own.
func Erofs(path string) (*Tree, error) {
	return New("erofs", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, Option{Key: "source", Value: path})
}
