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

	"cri-mini/internal/broken"
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

func bootID() ([]byte, error) {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("boot id: %w", err)
	}
	return id, nil
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
	mark, err := os.ReadFile(s.path(layersDir, folder, bootFile))
	return err != nil || !bytes.Equal(mark, s.boot)
}

// sweepLost removes layers that are lost, and syncs those of this boot that a
// process before us did not sync.
func (s *store) sweepLost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.layers {
		if s.unsynced[id] != nil || s.synced(folderName(id)) {
			continue
		}
		folder, err := os.Open(s.path(layersDir, folderName(id)))
		if err != nil {
			return err
		}
		s.syncLater(id, folder)
	}
	folders, err := os.ReadDir(s.path(layersDir))
	for _, folder := range folders {
		if layerOf(folder.Name()) != "" && s.lost(folder.Name()) { // what is not ours is not lost
			slog.Warn("layer was not on the disk before the power went", "layer", folder.Name())
			err = errors.Join(err, s.setAside(s.path(layersDir, folder.Name())))
		}
	}
	return err
}

// syncLater has a layer synced; several that wait are synced together. The
// folder is open since before anything was written to it: of an error that the
// kernel met in writing, and told somebody else of, only such a descriptor hears.
// And what bears the name later may be another copy. The caller holds s.mu and gives the descriptor away.
func (s *store) syncLater(id digest.Digest, folder *os.File) {
	s.unsynced[id] = folder
	if len(s.unsynced) == 1 {
		s.chores.add(s.syncWaiting)
	}
}

func (s *store) syncWaiting() {
	s.mu.Lock()
	waiting := s.unsynced
	s.unsynced = make(map[digest.Digest]*os.File)
	s.mu.Unlock()
	for id, folder := range waiting {
		err := s.syncLayer(folder)
		folder.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be removed by now
			slog.Error("cannot bring a layer to stable storage; look whether it is whole by cri-mini image verify", "layer", id, "err", err)
		}
	}
}

// noSync is for a layer that is removed or replaced. The caller holds s.mu.
func (s *store) noSync(id digest.Digest) {
	if folder := s.unsynced[id]; folder != nil {
		folder.Close()
		delete(s.unsynced, id)
	}
}

// syncLayer ends in a mark that is not synced itself: lost in a power cut, that
// only means to fetch the layer again. All of it goes by the descriptor, so
// that the mark is given to what was synced and to nothing else.
func (s *store) syncLayer(folder *os.File) error {
	if !broken.Sync {
		if err := s.sync(folder); err != nil {
			return err
		}
		if err := syncFile(s.path(layersDir)); err != nil {
			return err
		}
	}
	crashpoint.Here("layer.synced")
	fd, err := unix.Openat(int(folder.Fd()), syncedFile, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return wrap("mark as synced", err)
	}
	return unix.Close(fd)
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
func syncFileSystem(folder *os.File) error {
	return wrap("sync file system", unix.Syncfs(int(folder.Fd())))
}

// syncFiles is for a layer of few files.
func syncFiles(folder *os.File) error {
	for _, name := range []string{imageFile, infoFile, indexFile, bootFile, "."} {
		fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT && name == indexFile {
			continue // of a layer from before there was one
		}
		if err != nil {
			return wrap("sync "+name, err)
		}
		err = unix.Fsync(fd)
		unix.Close(fd)
		if err != nil {
			return wrap("sync "+name, err)
		}
	}
	return nil
}
