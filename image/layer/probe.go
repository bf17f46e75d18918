package layer

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"cri-mini/image/layer/erofs"
	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// Probe tells whether EROFS images kept in dir can be used: it makes a tiny
// one, mounts it from its file and stacks an overlay on it, all detached, so
// that no mount table shows it and nothing is left if we are killed. The error
// is an *ErrUnsupported if a feature is missing. It takes a millisecond.
//
// The folder matters beside the kernel: tmpfs, for example, cannot back a mount.
func Probe(dir string) error {
	image, err := probeImage(dir)
	if err != nil {
		return fmt.Errorf("probe erofs: %w", err)
	}
	defer image.Close()
	mount, err := mountDetached("erofs", func(fs int) error {
		return unix.FsconfigSetString(fs, "source", "/proc/self/fd/"+strconv.Itoa(int(image.Fd())))
	})
	if err != nil {
		return &ErrUnsupported{"file-backed erofs mount", err}
	}
	defer unix.Close(mount)
	overlay, err := overlayOn(mount)
	if err != nil {
		return &ErrUnsupported{"overlayfs on detached mounts", err}
	}
	defer unix.Close(overlay)
	return probeContent(overlay)
}

const (
	probeName = "file"
	probeText = "erofs below overlayfs"
)

// nameless makes a file that goes with us, however we end. Where the file system
// cannot do that, it has a name for a moment.
func nameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, ".probe-"+rand.Text()); err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// probeImage makes an image with two directories that overlay each other.
func probeImage(dir string) (*os.File, error) {
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	root := tree.NewRoot()
	file := &tree.Node{Mode: unix.S_IFREG | 0o444, Size: int64(len(probeText))}
	upper, lower := tree.ImpliedDir(), tree.ImpliedDir()
	root.Put("upper", upper)
	root.Put("lower", lower)
	lower.Put(probeName, file)
	w := erofs.NewWriter(f)
	if err = w.Content(file, strings.NewReader(probeText), false); err == nil {
		_, err = w.Finish(root, [16]byte{1})
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// mountDetached makes a mount that is in no namespace.
func mountDetached(fsType string, configure func(fs int) error) (int, error) {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, wrap("fsopen "+fsType, err)
	}
	defer unix.Close(fs)
	if err := configure(fs); err != nil {
		return -1, wrap("configure "+fsType, err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, wrap("create "+fsType, err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	return mount, wrap("fsmount "+fsType, err)
}

func overlayOn(mount int) (int, error) {
	return mountDetached("overlay", func(fs int) error {
		for _, name := range []string{"upper", "lower"} {
			dir, err := unix.Openat(mount, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			err = unix.FsconfigSetFd(fs, "lowerdir+", dir)
			unix.Close(dir)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// probeContent reads through both file systems: a mount that cannot be read is
// worse than none.
func probeContent(overlay int) error {
	fd, err := unix.Openat(overlay, probeName, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &ErrUnsupported{"overlayfs on erofs", err}
	}
	defer unix.Close(fd)
	buf := make([]byte, len(probeText)+1)
	n, err := unix.Read(fd, buf)
	if err == nil && !bytes.Equal(buf[:n], []byte(probeText)) {
		err = fmt.Errorf("read %q, want %q", buf[:n], probeText)
	}
	if err != nil {
		return &ErrUnsupported{"overlayfs on erofs", err}
	}
	return nil
}
