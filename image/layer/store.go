package layer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"cri-mini/image/layer/index"
	"cri-mini/internal/broken"
	"cri-mini/internal/crashpoint"
	"cri-mini/internal/spread"
)

// What lies below the root of a store:
//
//	layers/sha256-…/      a layer, complete: rename put it here
//	    tree/             its files, or
//	    image.erofs       one image with all of them
//	    info.json         what List tells
//	    index             what Verify compares with
//	    boot              the boot id of when it was made
//	    synced            it is on stable storage
//	unfinished/w-…/       the same, being written by who holds a lock on it
//	replaced/sha256-….…/  had its place taken by Replace, and may be in use
//	removed/r-…/          was removed, waits to be deleted
const (
	layersDir     = "layers"
	unfinishedDir = "unfinished"
	replacedDir   = "replaced"
	removedDir    = "removed"
	infoFile      = "info.json"
	indexFile     = "index"
	imageFile     = "image.erofs"
)

// form is what distinguishes a store of directories from one of images.
type form struct {
	name    string
	payload string // in the folder of a layer
	build   func(path string) (builder, error)
	// sync brings the folder of a layer to stable storage.
	sync func(folder *os.File) error
	// compare tells what of a payload is not as the index has it.
	compare func(ctx context.Context, folder *os.File, x index.Index, found func(Difference)) error
}

var forms = []form{
	{Directory, "tree", func(path string) (builder, error) { return newDirectoryBuilder(path) }, syncFileSystem, compareDirectory},
	{Erofs, imageFile, func(path string) (builder, error) { return newImageBuilder(path) }, syncFiles, compareImage},
}

// store is a Store of either form.
type store struct {
	form
	root   string
	limits Limits
	boot   []byte // the id of this boot
	chores chores

	mu       sync.Mutex // guards what follows
	layers   map[digest.Digest]Info
	unsynced map[digest.Digest]*os.File // the folders
}

// OpenDirectory opens, or makes, a store of directories at root.
func OpenDirectory(root string, options ...Option) (Store, error) {
	return open(root, Directory, options)
}

// OpenErofs opens, or makes, a store of EROFS images at root. Whether this
// kernel can mount them, Probe tells.
func OpenErofs(root string, options ...Option) (Store, error) {
	return open(root, Erofs, options)
}

func open(root, name string, options []Option) (_ *store, err error) {
	s := &store{root: root, limits: DefaultLimits, unsynced: make(map[digest.Digest]*os.File)}
	for _, f := range forms {
		if f.name == name {
			s.form = f
		}
	}
	for _, o := range options {
		o(s)
	}
	if s.boot, err = bootID(); err != nil {
		return nil, fmt.Errorf("layer store: %w", err)
	}
	for _, dir := range []string{layersDir, unfinishedDir, replacedDir, removedDir} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return nil, fmt.Errorf("layer store: %w", err)
		}
	}
	if err := spread.Children(s.path(unfinishedDir)); err != nil {
		slog.Debug("layers are not spread over the disk", "err", err)
	}
	return s, s.load()
}

func (s *store) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

func (s *store) Form() string { return s.form.name }

// load learns which layers there are. Layers of the other form are a mistake
// of the operator and nothing that we may delete: containers may use them.
func (s *store) load() error {
	s.layers = make(map[digest.Digest]Info)
	folders, err := os.ReadDir(s.path(layersDir))
	if err != nil {
		return fmt.Errorf("layer store: %w", err)
	}
	for _, folder := range folders {
		if s.lost(folder.Name()) {
			continue // Sweep removes it
		}
		switch info, err := s.read(folder.Name()); {
		case errors.As(err, new(*otherFormError)):
			return fmt.Errorf("layer store: layer %s: %w", folder.Name(), err)
		case err != nil:
			slog.Warn("layer cannot be used", "layer", folder.Name(), "err", err)
		default:
			s.layers[info.DiffID] = info
		}
	}
	return nil
}

func (s *store) read(folder string) (info Info, err error) {
	data, err := os.ReadFile(s.path(layersDir, folder, infoFile))
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return info, fmt.Errorf("%s: %w", infoFile, err)
	}
	if folderName(info.DiffID) != folder {
		return info, fmt.Errorf("%s: describes %q", infoFile, info.DiffID)
	}
	if found := formOf(s.path(layersDir, folder)); found != s.form.name {
		return info, &otherFormError{found, s.form.name}
	}
	return info, nil
}

// formOf tells the form of the layer in a folder, "" if it has none.
func formOf(folder string) string {
	for _, f := range forms {
		if _, err := os.Lstat(filepath.Join(folder, f.payload)); err == nil {
			return f.name
		}
	}
	return ""
}

// otherFormError says that a store was opened in a form it is not in.
type otherFormError struct{ found, wanted string }

func (e *otherFormError) Error() string {
	return fmt.Sprintf("has the form %q, not %q: open the store in that form, or remove it when no container runs", e.found, e.wanted)
}

// folderName has no colon, for the option strings of overlayfs are split there.
func folderName(id digest.Digest) string { return strings.Replace(string(id), ":", "-", 1) }

func (s *store) Path(id digest.Digest) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.layers[id]; !ok {
		return "", fmt.Errorf("layer %.80q: %w", id, ErrNotFound)
	}
	return s.path(layersDir, folderName(id), s.payload), nil
}

func (s *store) List() ([]Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Info, 0, len(s.layers))
	for _, info := range s.layers {
		list = append(list, info)
	}
	return list, nil
}

func (s *store) Remove(id digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.layers[id]; !ok {
		return fmt.Errorf("layer %.80q: %w", id, ErrNotFound)
	}
	if err := s.setAside(s.path(layersDir, folderName(id))); err != nil {
		return fmt.Errorf("layer %s: %w", id, err)
	}
	delete(s.layers, id)
	s.noSync(id)
	return nil
}

// setAside moves a folder to where things wait for their deletion. A file
// system that loses the rename in a power cut also loses the deletions that
// follow it.
func (s *store) setAside(folder string) error {
	aside := s.path(removedDir, "r-"+rand.Text())
	if err := os.Rename(folder, aside); err != nil {
		return err
	}
	crashpoint.Here("layer.set-aside")
	s.chores.add(func() { s.delete(aside) })
	return nil
}

func (s *store) delete(path string) {
	if err := os.RemoveAll(path); err != nil {
		slog.Warn("cannot delete a removed layer", "path", path, "err", err)
	}
	crashpoint.Here("layer.deleted")
}

func (s *store) Write(ctx context.Context, tar io.Reader) (Pending, error) {
	p, err := s.newPending()
	if err != nil {
		return nil, fmt.Errorf("layer store: %w", err)
	}
	if err := p.write(ctx, tar); err != nil {
		return nil, errors.Join(err, p.Discard())
	}
	return p, nil
}

// Sweep looks for what nobody works on any more: folders that were being
// written and have no lock, those waiting for deletion, and layers that a
// power cut may have left without their content.
func (s *store) Sweep() error {
	var failed error
	for _, sweep := range []func() error{s.sweepUnfinished, s.sweepRemoved, s.sweepLost} {
		failed = errors.Join(failed, sweep())
	}
	return wrap("sweep layer store", failed)
}

func (s *store) sweepUnfinished() error {
	return s.each(unfinishedDir, func(path string) error {
		lock, err := lockFolder(path)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			return nil // being written, or just finished
		}
		if err != nil {
			return err
		}
		defer lock.Close()
		if broken.Sweep {
			return nil
		}
		return s.setAside(path)
	})
}

func (s *store) sweepRemoved() error {
	return s.each(removedDir, func(path string) error {
		s.chores.add(func() { s.delete(path) })
		return nil
	})
}

func (s *store) each(dir string, do func(path string) error) error {
	folders, err := os.ReadDir(s.path(dir))
	for _, folder := range folders {
		err = errors.Join(err, do(s.path(dir, folder.Name())))
	}
	return err
}

// Wait returns when the work in the background is done.
func (s *store) Wait() { s.chores.wait() }
