package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cri-mini/image/layer/index"
	"cri-mini/image/layer/tree"
	"cri-mini/internal/crashpoint"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// builder puts on the disk what the unpacker has decided, as one form of layer.
// A directory is named by its node; names have no slash and are not dots.
type builder interface {
	// file stores a regular file whose content it reads to the end.
	file(dir *tree.Node, name string, n *tree.Node, content io.Reader, sparse bool) error
	// create stores any other node. A directory may get its attributes later:
	// archives describe directories again, and files in it change its time.
	create(dir *tree.Node, name string, n *tree.Node) error
	link(dir *tree.Node, name string, oldDir *tree.Node, oldName string) error
	// remove takes a name back, with all below it.
	remove(dir *tree.Node, name string, old *tree.Node) error
	// finish stores what is left to store and returns the bytes on the disk;
	// of an image file also how to know it again.
	finish(root *tree.Node, id digest.Digest) (size uint64, file index.File, err error)
	close() error
}

// unpacker applies the entries of one archive, in order.
type unpacker struct {
	build  builder
	walk   tree.Walk
	limits Limits

	entries  int
	inodes   int
	metadata int64
	sparse   int64
}

func newUnpacker(b builder, limits Limits) *unpacker {
	u := &unpacker{build: b, limits: limits, inodes: 1}
	u.walk = tree.Walk{Root: tree.NewRoot(), Depth: limits.Depth, Bytes: limits.Path, Make: u.makeDir}
	return u
}

// unpack reads an archive into a builder and tells what came of it.
func unpack(ctx context.Context, archive io.Reader, b builder, limits Limits) (Info, index.Index, error) {
	src := newSource(ctx, archive, limits.Archive)
	defer src.stop()
	u := newUnpacker(b, limits)
	var written index.Index
	if err := u.run(tar.NewReader(src)); err != nil {
		if src.failed != nil {
			err = src.failed
		}
		return Info{}, written, err
	}
	id, err := src.finish()
	if err != nil {
		return Info{}, written, err
	}
	written.Root = u.walk.Root
	size, file, err := b.finish(u.walk.Root, id)
	if err != nil {
		return Info{}, written, err
	}
	written.File = file
	return Info{DiffID: id, Size: size, Inodes: uint64(u.inodes), Opaque: u.walk.Root.Opaque}, written, nil
}

func (u *unpacker) run(r *tar.Reader) error {
	for {
		h, err := r.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, tar.ErrInsecurePath): // parse is the judge of names
		case err != nil:
			return u.fail(fmt.Sprintf("entry %d", u.entries+1), malformed(err))
		}
		if u.entries++; u.entries > u.limits.Entries {
			return invalidf("more than %d entries", u.limits.Entries)
		}
		crashpoint.Here("layer.entry-read")
		e, err := parse(h, &u.limits)
		if err == nil {
			err = u.apply(e, r)
		}
		if err != nil {
			return u.fail(fmt.Sprintf("entry %.256q", h.Name), err)
		}
	}
}

// fail names the entry and sorts out whose fault an error is.
func (u *unpacker) fail(entry string, err error) error {
	var lost tree.Error
	if errors.As(err, &lost) {
		err = invalid(err.Error())
	}
	return fmt.Errorf("%s: %w", entry, err)
}

// malformed says that the archive itself cannot be read on. A failing source
// hides here too, but unpack knows about that.
func malformed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return invalidf("archive is cut off")
	}
	return invalid(err.Error())
}

func (u *unpacker) apply(e entry, content io.Reader) error {
	switch e.kind {
	case inode:
		return u.inode(e, content)
	case hardLink:
		return u.hardLink(e)
	case whiteout:
		return u.whiteout(e)
	case opaqueDir:
		dir, err := u.walk.To(e.path)
		if err == nil {
			dir.Opaque = true
		}
		return err
	}
	return nil
}

func (u *unpacker) inode(e entry, content io.Reader) error {
	if err := u.charge(e); err != nil {
		return err
	}
	if len(e.path) == 0 {
		u.walk.Root.Describe(e.node)
		return nil
	}
	dir, name, err := u.place(e.path)
	if err != nil {
		return err
	}
	if old := dir.Child(name); old != nil {
		if old.IsDir() && e.node.IsDir() {
			old.Describe(e.node)
			return nil
		}
		// The entries before this one hid whatever the lower layers have here.
		e.node.Opaque = e.node.IsDir()
		if err := u.remove(dir, name, old); err != nil {
			return err
		}
	}
	return u.add(dir, name, e.node, func() error {
		if e.node.Type() == unix.S_IFREG {
			return u.build.file(dir, name, e.node, &body{content, e.node}, e.sparse)
		}
		return u.build.create(dir, name, e.node)
	})
}

// hardLink gives a file of this layer one more name. Its target may not be in
// a lower layer: the layer is unpacked alone, may be stacked on others in
// another image, and a union file system cannot link across layers. The tools
// that build images add the target to the layer, and peers fail here as well.
func (u *unpacker) hardLink(e entry) error {
	oldDir, oldName, node, err := u.find(e.link)
	if err != nil {
		return err
	}
	dir, name, err := u.place(e.path)
	if err != nil {
		return err
	}
	switch old := dir.Child(name); {
	case old == node:
		return nil // an archive that names one file twice links it to itself
	case old != nil:
		if err := u.remove(dir, name, old); err != nil {
			return err
		}
		// What gave way may have been a directory with the target in it.
		if oldDir, oldName, _, err = u.find(e.link); err != nil {
			return err
		}
	}
	if err := u.remember(len(name)); err != nil {
		return err
	}
	return u.add(dir, name, node, func() error { return u.build.link(dir, name, oldDir, oldName) })
}

func (u *unpacker) find(path []string) (dir *tree.Node, name string, n *tree.Node, err error) {
	names := fmt.Sprintf("%.256q", strings.Join(path, "/"))
	if len(path) > 0 {
		name = path[len(path)-1]
		look := u.walk
		look.Make = nil
		if dir, err = look.To(path[:len(path)-1]); err != nil {
			return nil, "", nil, fmt.Errorf("hard link to %s: %w", names, err)
		}
		n = dir.Child(name)
	}
	switch {
	case len(path) == 0 || n != nil && n.IsDir():
		return nil, "", nil, invalidf("hard link to %s: is a directory", names)
	case n == nil || n.IsWhiteout():
		return nil, "", nil, fmt.Errorf("hard link to %s: %w", names, tree.ErrMissing)
	}
	return dir, name, n, nil
}

// whiteout hides a name of the lower layers. What this layer itself has under
// the name stays, whichever came first in the archive.
func (u *unpacker) whiteout(e entry) error {
	if len(e.path) == 0 {
		return invalidf("the root of a layer must be a directory")
	}
	dir, name, err := u.place(e.path)
	if err != nil {
		return err
	}
	if old := dir.Child(name); old != nil {
		old.Opaque = old.IsDir()
		return nil
	}
	if err := u.charge(e); err != nil {
		return err
	}
	return u.add(dir, name, e.node, func() error { return u.build.create(dir, name, e.node) })
}

// place finds the directory for a path and makes those nobody described.
func (u *unpacker) place(path []string) (dir *tree.Node, name string, err error) {
	name = path[len(path)-1]
	if dir, err = u.walk.To(path[:len(path)-1]); err != nil {
		return nil, "", err
	}
	return dir, name, u.walk.Fits(dir, name)
}

// makeDir makes a parent that the archive does not describe.
func (u *unpacker) makeDir(dir *tree.Node, name string, old *tree.Node) (*tree.Node, error) {
	n := tree.ImpliedDir()
	if old != nil {
		n.Opaque = true
		if err := u.remove(dir, name, old); err != nil {
			return nil, err
		}
	}
	if err := u.charge(entry{node: n, path: []string{name}}); err != nil {
		return nil, err
	}
	return n, u.add(dir, name, n, func() error { return u.build.create(dir, name, n) })
}

// add enters a node in the tree once it is on the disk.
func (u *unpacker) add(dir *tree.Node, name string, n *tree.Node, store func() error) error {
	if err := store(); err != nil {
		return err
	}
	if n.Links == 0 {
		u.inodes++
	}
	dir.Put(name, n)
	return nil
}

func (u *unpacker) remove(dir *tree.Node, name string, old *tree.Node) error {
	if err := u.build.remove(dir, name, old); err != nil {
		return err
	}
	u.inodes -= dir.Drop(name)
	return nil
}

// charge counts what an entry costs against the limits. Nothing is given back
// for what is replaced later.
func (u *unpacker) charge(e entry) error {
	if u.inodes >= u.limits.Entries {
		return invalidf("more than %d inodes", u.limits.Entries)
	}
	bytes := len(e.node.Target)
	if n := len(e.path); n > 0 {
		bytes += len(e.path[n-1])
	}
	for _, x := range e.node.Xattrs {
		bytes += len(x.Name) + len(x.Value)
	}
	if err := u.remember(bytes); err != nil {
		return err
	}
	if e.sparse {
		if u.sparse += e.node.Size; u.sparse > u.limits.Sparse || u.sparse < 0 {
			return invalidf("more than %d bytes in sparse files", u.limits.Sparse)
		}
	}
	return nil
}

// remember counts what the tree keeps in memory.
func (u *unpacker) remember(bytes int) error {
	if u.metadata += int64(bytes); u.metadata > u.limits.Metadata {
		return invalidf("more than %d bytes of names, links and xattrs", u.limits.Metadata)
	}
	return nil
}

// body is the content of an entry, summed up as it passes. It tells an archive
// that is cut off from a disk that does not take the bytes.
type body struct {
	r    io.Reader
	node *tree.Node
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.node.Sum = index.Sum(b.node.Sum, p[:n])
	if err != nil && err != io.EOF {
		err = malformed(err)
	}
	return n, err
}
