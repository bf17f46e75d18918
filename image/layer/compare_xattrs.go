package layer

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// xattrs compares those attributes that a layer can have. Labels are the
// machine's: it may give and change them as it likes.
func (c *directoryComparer) xattrs(fd int, path string, n *tree.Node) error {
	want := map[string][]byte{}
	for _, x := range n.Xattrs {
		want[x.Name] = x.Value
	}
	if n.Opaque {
		want[overlayOpaque] = []byte("y")
	}
	names, err := xattrNames(fd)
	if err != nil {
		return c.judge(path, err)
	}
	for _, name := range names {
		space, _, _ := strings.Cut(name, ".")
		if _, wanted := want[name]; !wanted && space != "user" && space != "trusted" && name != capability {
			continue
		}
		value, err := xattrValue(fd, name)
		if err != nil {
			if err := c.judge(path, wrap("xattr "+name, err)); err != nil {
				return err
			}
			continue
		}
		switch right, wanted := want[name]; {
		case !wanted:
			c.differ(path, "xattr %q is not in the image", name)
		case !bytes.Equal(value, right):
			c.differ(path, "xattr %q is %.64q, want %.64q", name, value, right)
		}
		delete(want, name)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		c.differ(path, "xattr %q is missing", name)
	}
	return nil
}

func xattrNames(fd int) ([]string, error) {
	size, err := unix.Listxattr(self(fd), nil)
	if err == unix.ENOTSUP || size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]byte, size)
	if size, err = unix.Listxattr(self(fd), list); err != nil {
		return nil, err
	}
	var names []string
	for name := range bytes.SplitSeq(list[:size], []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

func xattrValue(fd int, name string) ([]byte, error) {
	size, err := unix.Getxattr(self(fd), name, nil)
	if err != nil || size == 0 {
		return nil, err
	}
	value := make([]byte, size)
	size, err = unix.Getxattr(self(fd), name, value)
	return value[:max(size, 0)], err
}
