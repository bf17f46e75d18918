// Package image keeps images and their layers on disk.
//
// An Image is a config with names, and is called by the digest of the config.
// A Layer is an unpacked file tree, named by its content and shared by all
// images that have it; package image/layer keeps it. A Hold says that a
// container needs the layers of an image, also after the image was removed.
//
// On disk there is one record per image, and the layers. Everything else,
// names, sizes, who shares what, is worked out from them at start. The package
// knows nothing of pods and never mounts.
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"cri-mini/image/layer"
	"cri-mini/image/manifest"
	"cri-mini/image/registry"
	"cri-mini/internal/atomicfile"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ErrNotFound says that no image has the name or ID asked for, here or in the
// registry.
var ErrNotFound = registry.ErrNotFound

// Options of a Store.
type Options struct {
	RegistryConfigDir string            // see package registry
	Platform          manifest.Platform // zero: this machine's
	LayerForm         string            // layer.Auto, layer.Erofs or layer.Directory; empty: layer.Auto
	UserAgent         string
	Logger            *slog.Logger
}

// Store keeps images. It is safe for concurrent use.
type Store struct {
	root     string
	lock     *os.File // held until Close
	log      *slog.Logger
	platform manifest.Platform
	client   *registry.Client
	store    layer.Store
	running  sync.WaitGroup // flights
	end      context.Context
	stop     context.CancelFunc

	// write is held while records change, mu only while memory is looked at,
	// so that no reader waits for the disk. write is taken first.
	write sync.Mutex

	mu      sync.Mutex // guards what follows
	images  map[digest.Digest]*entry
	names   map[string]*entry // by tag and by digest
	list    []Image           // of the visible images; nil: make it again
	owners  map[string][]*entry
	layers  map[digest.Digest]layer.Info // complete ones
	uses    map[digest.Digest]int        // by images, and by pulls under way
	flights map[digest.Digest]*flight
	// replaced are copies of layers that a repair took the place of, and the
	// owners that may use them.
	replaced map[layer.Replaced]map[string]bool
	bytes    uint64
	inodes   uint64

	// keepUnknown: a record could not be read, so a layer that seems to
	// belong to nobody may be in use.
	keepUnknown bool
}

// Open opens the store at root, making it if need be.
func Open(root string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	root, err := filepath.Abs(root) // paths of layers are for the kernel, whatever our folder is then
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if o.LayerForm == "" {
		o.LayerForm = layer.Auto
	}
	if o.Platform.Architecture == "" {
		o.Platform = manifest.Host()
	}
	s := &Store{
		root:     root,
		log:      o.Logger,
		platform: o.Platform,
		client:   registry.New(registry.Options{ConfigDir: o.RegistryConfigDir, UserAgent: o.UserAgent, Logger: o.Logger}),
		images:   map[digest.Digest]*entry{},
		names:    map[string]*entry{},
		owners:   map[string][]*entry{},
		layers:   map[digest.Digest]layer.Info{},
		uses:     map[digest.Digest]int{},
		flights:  map[digest.Digest]*flight{},
		replaced: map[layer.Replaced]map[string]bool{},
	}
	for _, dir := range []string{s.recordDir(), s.tempDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("image store: %w", err)
		}
	}
	if s.lock, err = lockFolder(root); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if err := s.load(o.LayerForm); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("image store: %w", err)
	}
	s.end, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// ErrInUse is a folder that another store has open.
var ErrInUse = errors.New("in use by another process")

// lockFolder keeps a second process away: what one knows, the other would
// change behind its back. The lock ends with the process.
func lockFolder(root string) (*os.File, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is %w", root, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	return dir, nil
}

func (s *Store) load(form string) (err error) {
	if s.store, err = layer.Open(filepath.Join(s.root, "layers"), form); err != nil {
		return err
	}
	if err := s.loadLayers(); err != nil {
		return err
	}
	return s.loadRecords()
}

// Close ends downloads, and waits for them and for layers being deleted.
func (s *Store) Close() error {
	s.stop()
	s.running.Wait()
	if w, ok := s.store.(interface{ Wait() }); ok {
		w.Wait()
	}
	if err := s.lock.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// Form is what new layers are written as.
func (s *Store) Form() string { return s.store.Form() }

// Usage tells what all layers take on disk.
func (s *Store) Usage() (bytes, inodes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.inodes
}

// Collect removes what a crash left, and images that were removed and that
// nobody holds. Call it once after start, when all containers hold their
// images again.
func (s *Store) Collect() error {
	failed := errors.Join(atomicfile.Sweep(s.recordDir()), s.sweepTemp(), s.store.Sweep(), s.watchReplaced())
	s.dropUnknown()
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	var gone []*entry
	for _, e := range s.images {
		if e.needsHolder() {
			gone = append(gone, e)
		}
	}
	s.mu.Unlock()
	for _, e := range gone {
		_, err := s.drop(e)
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("image store: collect: %w", failed)
	}
	return nil
}

func (s *Store) recordDir() string { return filepath.Join(s.root, "records") }
func (s *Store) tempDir() string   { return filepath.Join(s.root, "tmp") }

// sweepTemp removes what imports left. They hold their files open without a
// name as far as they can, so anything here is from a crash.
func (s *Store) sweepTemp() error {
	entries, err := os.ReadDir(s.tempDir())
	if err != nil {
		return err
	}
	var failed error
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(s.tempDir(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// loadLayers learns which layers are there.
func (s *Store) loadLayers() error {
	infos, err := s.store.List()
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	for _, info := range infos {
		s.addLayer(info)
	}
	return nil
}

// addLayer makes a complete layer known. s.mu is held, or nobody else knows s
// yet.
func (s *Store) addLayer(info layer.Info) {
	old := s.layers[info.DiffID] // what a repair replaced
	s.layers[info.DiffID] = info
	s.bytes += info.Size - old.Size
	s.inodes += info.Inodes - old.Inodes
}

// dropUnknown removes layers of no image: a pull that was under way at a crash
// committed them.
func (s *Store) dropUnknown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unknown []digest.Digest
	for d := range s.layers {
		if s.uses[d] == 0 {
			unknown = append(unknown, d)
		}
	}
	if len(unknown) == 0 {
		return
	}
	if s.keepUnknown {
		s.log.Warn("layers of no known image are kept because a damaged image record may mean them",
			"layers", len(unknown), "records", filepath.Join(s.recordDir(), "*"+badSuffix))
		return
	}
	s.log.Info("removing layers of no image", "layers", len(unknown))
	for _, d := range unknown {
		s.removeLayer(d)
	}
}
