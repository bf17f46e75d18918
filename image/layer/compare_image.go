package layer

import (
	"context"
	"errors"
	"fmt"
	"os"

	"cri-mini/image/layer/index"
	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// imageComparer compares an EROFS image with an index, without mounting it: a
// spoiled file system is nothing to give to the kernel. What is left of names
// that were replaced while the image was written is not looked at.
type imageComparer struct {
	*content
	ctx   context.Context
	fd    int
	found func(Difference)
	seen  map[*tree.Node]bool
}

func compareImage(ctx context.Context, folder *os.File, x index.Index, found func(Difference)) error {
	c := imageComparer{content: newContent(), ctx: ctx, found: found, seen: map[*tree.Node]bool{}}
	var err error
	if c.fd, err = c.open(int(folder.Fd()), imageFile, beneath); err != nil {
		return c.judge("", wrap("open "+imageFile, err))
	}
	defer unix.Close(c.fd)
	var st unix.Stat_t
	if err := unix.Fstat(c.fd, &st); err != nil {
		return c.judge("", wrap("stat "+imageFile, err))
	}
	if st.Size != x.File.Size {
		found(Difference{What: fmt.Sprintf("%s has %d bytes, want %d", imageFile, st.Size, x.File.Size)})
	}
	if err := c.part("first block", 0, pageSize, x.File.HeadSum); err != nil {
		return err
	}
	if err := c.part("names and attributes", x.File.Rest, x.File.Size-x.File.Rest, x.File.RestSum); err != nil {
		return err
	}
	return c.dir("", x.Root)
}

// judge turns an error that means damage into a difference.
func (c *imageComparer) judge(path string, err error) error {
	if errors.Is(err, errCutOff) || isDamage(err) {
		c.found(Difference{path, err.Error()})
		return nil
	}
	return err
}

func (c *imageComparer) part(what string, offset, size int64, want uint32) error {
	got, err := c.sum(c.ctx, c.fd, offset, size)
	if err != nil {
		return c.judge("", fmt.Errorf("%s, %s: %w", imageFile, what, err))
	}
	if got != want {
		c.found(Difference{What: fmt.Sprintf("%s: %s differ from what was written", imageFile, what)})
	}
	return nil
}

func (c *imageComparer) dir(path string, dir *tree.Node) error {
	for _, name := range dir.Names() {
		n, below := dir.Child(name), name
		if path != "" {
			below = path + "/" + name
		}
		var err error
		switch {
		case n.IsDir():
			err = c.dir(below, n)
		case n.Type() == unix.S_IFREG && n.Size > 0 && !c.seen[n]:
			c.seen[n] = n.Links > 1
			err = c.file(below, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file compares whole blocks, for a program that maps a file sees the bytes
// behind its end.
func (c *imageComparer) file(path string, n *tree.Node) error {
	var sum uint32
	clean := true
	blocks := (n.Size + pageSize - 1) &^ (pageSize - 1)
	err := c.read(c.ctx, c.fd, int64(n.Block)*pageSize, blocks, func(at int64, piece []byte) {
		inside := min(int64(len(piece)), max(n.Size-at, 0))
		sum = index.Sum(sum, piece[:inside])
		clean = clean && isZero(piece[inside:])
	})
	switch {
	case err != nil:
		return c.judge(path, err)
	case sum != n.Sum:
		c.found(Difference{path, "content differs"})
	case !clean:
		c.found(Difference{path, "bytes behind the end differ"})
	}
	return nil
}
