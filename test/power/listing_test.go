package power

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// line is what is compared of one name in a layer. All times in the archives are 0.
type line struct {
	name, kind     string
	mode           uint32
	uid, gid       int
	seconds        int64
	xattr, content string
}

func (l line) String() string {
	return fmt.Sprintf("%s %s %o %d:%d %d %q %s", l.name, l.kind, l.mode, l.uid, l.gid, l.seconds, l.xattr, l.content)
}

// layerFolder is where a store keeps a layer.
func layerFolder(images, id string) string {
	return filepath.Join(images, "layers/layers", strings.Replace(id, ":", "-", 1))
}

// served lists a layer as a container would see it, sorted.
func served(images, id string) ([]string, error) {
	folder := layerFolder(images, id)
	top, end := filepath.Join(folder, "tree"), func() error { return nil }
	if image := filepath.Join(folder, "image.erofs"); exists(image) {
		mount, err := mountImage(image)
		if err != nil {
			return nil, err
		}
		top, end = fmt.Sprintf("/proc/self/fd/%d", mount), func() error { return unix.Close(mount) }
	}
	lines, err := listing(top, "")
	slices.Sort(lines)
	return lines, errors.Join(err, end())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func mountImage(image string) (int, error) {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen erofs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", image); err != nil {
		return -1, fmt.Errorf("mount %s: %w", image, err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("mount %s: %w", image, err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
}

func listing(top, folder string) (lines []string, err error) {
	entries, err := os.ReadDir(filepath.Join(top, folder))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := filepath.Join(folder, e.Name())
		l, err := look(top, name)
		if err != nil {
			return lines, err
		}
		lines = append(lines, l.String())
		if l.kind != "folder" {
			continue
		}
		below, err := listing(top, name)
		lines = append(lines, below...)
		if err != nil {
			return lines, err
		}
	}
	return lines, nil
}

func look(top, name string) (line, error) {
	path := filepath.Join(top, name)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return line{}, fmt.Errorf("%s: %w", path, err)
	}
	l := line{name: name, mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), seconds: st.Mtim.Sec}
	value := make([]byte, 64)
	if n, err := unix.Lgetxattr(path, "user.number", value); err == nil {
		l.xattr = string(value[:n])
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		l.kind = "folder"
	case unix.S_IFLNK:
		l.kind = "symlink"
		l.content, err = os.Readlink(path)
	case unix.S_IFREG:
		l.kind = "file"
		var data []byte
		data, err = os.ReadFile(path)
		l.content = fmt.Sprintf("%x", sha256.Sum256(data))
	default:
		l.kind = fmt.Sprintf("something of mode %o", st.Mode)
	}
	return l, err
}

// differences tells how a layer is not as it has to be, in a few words.
func differences(got, want []string) string {
	var text strings.Builder
	for _, side := range []struct {
		what      string
		has, less []string
	}{{"has", got, want}, {"lacks", want, got}} {
		n := 0
		for _, l := range side.has {
			if _, found := slices.BinarySearch(side.less, l); found {
				continue
			}
			if n++; n <= 2 {
				fmt.Fprintf(&text, "\n\t%s %s", side.what, l)
			}
		}
		if n > 2 {
			fmt.Fprintf(&text, "\n\t%s %d more", side.what, n-2)
		}
	}
	return text.String()
}
