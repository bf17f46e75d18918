package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"cri-mini/image/reference"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ErrNoArchive says that what should hold images does not.
var ErrNoArchive = errors.New("neither an OCI image layout (oci-layout) nor a docker archive (manifest.json)")

// ImportArchive brings in the images of an OCI image layout, as a folder or as
// a tar archive, or of an archive as "docker save" writes it. The archive may
// be compressed. A name, if given, replaces those in the archive, which then
// must hold one image.
func (s *Store) ImportArchive(ctx context.Context, path, name string) ([]Image, error) {
	images, err := s.importPath(ctx, path, name)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", path, err)
	}
	return images, nil
}

// ImportStream is ImportArchive for an archive that comes from elsewhere.
func (s *Store) ImportStream(ctx context.Context, r io.Reader, name string) ([]Image, error) {
	images, err := s.importStream(ctx, r, name)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	return images, nil
}

func (s *Store) importPath(ctx context.Context, path, name string) ([]Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return s.importImages(ctx, folderArchive{root}, name)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !info.Mode().IsRegular() {
		return s.importStream(ctx, f, name)
	}
	plain, closePlain, err := decompress(f)
	if err != nil {
		return nil, err
	}
	defer closePlain()
	if _, compressed := plain.(named); compressed {
		return s.importStream(ctx, plain, name)
	}
	return s.importTar(ctx, f, name)
}

// importStream keeps the archive in a file without a name meanwhile: its table
// of contents may stand at its end.
func (s *Store) importStream(ctx context.Context, r io.Reader, name string) ([]Image, error) {
	f, err := os.OpenFile(s.tempDir(), os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("temporary file in %s: %w", s.tempDir(), err)
	}
	defer f.Close()
	plain, closePlain, err := decompress(readerWithContext{ctx, r})
	if err != nil {
		return nil, err
	}
	defer closePlain()
	if _, err := io.Copy(f, plain); err != nil {
		return nil, err
	}
	return s.importTar(ctx, f, name)
}

func (s *Store) importTar(ctx context.Context, f *os.File, name string) ([]Image, error) {
	a, err := readTarArchive(f)
	if err != nil {
		return nil, err
	}
	return s.importImages(ctx, a, name)
}

func (s *Store) importImages(ctx context.Context, a archive, name string) ([]Image, error) {
	found, err := s.imagesIn(a)
	if err != nil {
		return nil, err
	}
	if name != "" {
		if len(found) != 1 {
			return nil, fmt.Errorf("name %q: the archive holds %d images, a name can be given to one only", name, len(found))
		}
		n, err := reference.Parse(name)
		if err != nil {
			return nil, err
		}
		if n.Tag == "" {
			return nil, fmt.Errorf("name %q: an import takes a tag, not a digest", name)
		}
		found[0].name(n)
	}
	var images []Image
	for _, f := range found {
		img, err := s.ingest(ctx, f.incoming)
		if err != nil {
			return images, err
		}
		images = append(images, img)
	}
	return images, nil
}

// archived is an image found in an archive.
type archived struct {
	incoming
	digest digest.Digest // of its manifest or index, if there is one
}

// name replaces all names by one.
func (f *archived) name(n reference.Name) {
	f.tags = []string{n.String()}
	f.incoming.digest = ""
	if f.digest != "" {
		f.incoming.digest = n.WithDigest(f.digest).String()
	}
}

func (s *Store) imagesIn(a archive) ([]archived, error) {
	if _, err := readSmall(a, "oci-layout", 1<<16); err == nil {
		return s.layoutImages(a)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	found, err := dockerImages(a)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoArchive
	}
	return found, err
}

// archive is a set of files that can be read in any order, more than once.
type archive interface {
	// open fails with fs.ErrNotExist for an unknown name.
	open(name string) (file io.ReadCloser, size int64, err error)
}

// readSmall reads a whole file of an archive.
func readSmall(a archive, name string, limit int64) ([]byte, error) {
	f, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are allowed", name, size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

func readJSON(a archive, name string, limit int64, v any) error {
	data, err := readSmall(a, name, limit)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// folderArchive is an archive lying unpacked. A link in it cannot lead out.
type folderArchive struct{ root *os.Root }

func (a folderArchive) open(name string) (io.ReadCloser, int64, error) {
	f, err := a.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// maxArchiveFiles bounds the table of contents of an archive in memory.
const maxArchiveFiles = 100_000

// tarArchive is an archive in a tar file.
type tarArchive struct {
	file  tarFile
	parts map[string]part
	links map[string]string
}

// tarFile is what an *os.File can do of reading.
type tarFile interface {
	io.ReadSeeker
	io.ReaderAt
}

// part is where the content of one file stands in the tar file.
type part struct{ offset, size int64 }

func readTarArchive(f tarFile) (*tarArchive, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	a := &tarArchive{file: f, parts: map[string]part{}, links: map[string]string{}}
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		if len(a.parts)+len(a.links) >= maxArchiveFiles {
			return nil, fmt.Errorf("archive: more than %d files", maxArchiveFiles)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader has no buffer: the file now stands where content begins.
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.parts[name] = part{offset, h.Size}
		case tar.TypeSymlink:
			a.links[name] = path.Join("/", path.Dir(name), h.Linkname)[1:]
		case tar.TypeLink:
			a.links[name] = path.Clean("/" + h.Linkname)[1:]
		}
	}
}

func (a *tarArchive) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean("/" + name)[1:]
	for range 10 {
		if p, ok := a.parts[name]; ok {
			return io.NopCloser(io.NewSectionReader(a.file, p.offset, p.size)), p.size, nil
		}
		target, ok := a.links[name]
		if !ok {
			break
		}
		name = target
	}
	return nil, 0, &fs.PathError{Op: "open", Path: strings.ToValidUTF8(name, "?"), Err: fs.ErrNotExist}
}

type readerWithContext struct {
	ctx  context.Context
	from io.Reader
}

func (r readerWithContext) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(p)
}
