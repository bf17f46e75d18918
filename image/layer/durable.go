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

	"cri-mini/internal/crashpoint"
)

// A layer that was committed is not yet on stable storage, and waiting for the
// disk would cost a pull seconds. So it carries the id of the boot that made
// it, and a second file from when it was synced in the background. A layer of
// another boot without the second file may be full of holes after a power cut:
// it is not loaded, and Sweep removes it.
const (
	bootFile   = "boot"
	syncedFile = "synced"
	bootIDFile = "/proc/sys/kernel/random/boot_id"
)

func markBoot(folder string) error {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	return os.WriteFile(folder+"/"+bootFile, id, 0o600)
}

func (s *store) synced(folder string) bool {
	_, err := os.Lstat(s.path(layersDir, folder, syncedFile))
	return err == nil
}

// lost tells whether a power cut may have taken the content of a layer.
func (s *store) lost(folder string) bool {
	if s.synced(folder) {
		return false
	}
	id, err := os.ReadFile(bootIDFile)
	mark, markErr := os.ReadFile(s.path(layersDir, folder, bootFile))
	return err == nil && (markErr != nil || !bytes.Equal(mark, id))
}

// sweepLost removes layers that are lost, and syncs those of this boot that a
// process before us did not sync.
func (s *store) sweepLost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.layers {
		if !s.synced(folderName(id)) {
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

// syncLayer ends in a mark that is not synced itself: lost in a power cut, that
// only means to fetch the layer again.
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
	crashpoint.Here("layer.synced")
	return os.WriteFile(folder+"/"+syncedFile, nil, 0o600)
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
