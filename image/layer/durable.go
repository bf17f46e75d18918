package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A layer that was committed is not yet on stable storage, and waiting for the
// disk would cost a pull seconds. So a layer carries the id of the boot that
// made it until it was synced in the background. After a power cut the boot id
// is another: such a layer may be full of holes, is not loaded, and is removed
// by Sweep. (A file system keeps the order of names: whoever sees the layer
// sees this file too.)
const volatileFile = "volatile"

const bootIDFile = "/proc/sys/kernel/random/boot_id"

func markVolatile(folder string) error {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	return os.WriteFile(folder+"/"+volatileFile, id, 0o600)
}

// lost tells whether a power cut may have taken the content of a layer.
func (s *store) lost(folder string) bool {
	mark, err := os.ReadFile(s.path(layersDir, folder, volatileFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	id, idErr := os.ReadFile(bootIDFile)
	return err != nil || idErr != nil || !bytes.Equal(mark, id)
}

// sweepLost removes layers that are lost, and syncs those of this boot that a
// process before us did not sync.
func (s *store) sweepLost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.layers {
		if _, err := os.Lstat(s.path(layersDir, folderName(id), volatileFile)); err == nil {
			s.syncLater(id)
		}
	}
	folders, err := os.ReadDir(s.path(layersDir))
	for _, folder := range folders {
		if s.lost(folder.Name()) {
			slog.Warn("layer was not on the disk before the power went", "layer", folder.Name())
			err = errors.Join(err, s.setAside(s.path(layersDir, folder.Name())))
		}
	}
	return err
}

// syncLater has a layer synced; several that wait are synced together. The
// caller holds s.mu.
func (s *store) syncLater(id digest.Digest) {
	if s.unsynced[id] {
		return
	}
	s.unsynced[id] = true
	if len(s.unsynced) == 1 {
		s.chores.add(s.syncWaiting)
	}
}

func (s *store) syncWaiting() {
	s.mu.Lock()
	waiting := s.unsynced
	s.unsynced = make(map[digest.Digest]bool)
	s.mu.Unlock()
	for id := range waiting {
		if err := s.syncLayer(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			slog.Warn("cannot bring a layer to stable storage", "layer", id, "err", err)
		}
	}
}

// syncLayer ends in removing the mark: lost in a power cut, that only means to
// fetch the layer again.
func (s *store) syncLayer(id digest.Digest) error {
	folder := s.path(layersDir, folderName(id))
	if err := s.sync(folder + "/" + s.payload); err != nil {
		return err
	}
	for _, path := range []string{folder + "/" + infoFile, folder, s.path(layersDir)} {
		if err := syncFile(path); err != nil {
			return err
		}
	}
	return os.Remove(folder + "/" + volatileFile)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// syncFileSystem is the only way for thousands of files.
func syncFileSystem(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return wrap("sync file system", unix.Syncfs(int(f.Fd())))
}
