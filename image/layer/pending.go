package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"cri-mini/image/layer/index"
	"cri-mini/internal/crashpoint"
)

// pending is a layer in its folder under unfinished. The lock on the folder
// tells Sweep, in this process or the next, that somebody works on it.
type pending struct {
	store *store
	path  string
	lock  *os.File // nil after Commit, Replace or Discard
	info  Info
}

func (s *store) newPending() (*pending, error) {
	for {
		path, err := os.MkdirTemp(s.path(unfinishedDir), "w-")
		if err != nil {
			return nil, err
		}
		lock, err := lockFolder(path)
		switch {
		case err == nil:
			return &pending{store: s, path: path, lock: lock}, nil
		case errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist):
			// The Sweep of another process took it before we could lock it.
		default:
			return nil, errors.Join(err, os.Remove(path))
		}
	}
}

// lockFolder locks a folder until the file is closed or the process ends. It
// fails with EWOULDBLOCK if somebody has it, ErrNotExist if it was moved away.
func lockFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = sameFolder(f, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func sameFolder(f *os.File, path string) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(path)
	if err == nil && !os.SameFile(mine, there) {
		err = fs.ErrNotExist
	}
	return err
}

func (p *pending) write(ctx context.Context, tar io.Reader) error {
	b, err := p.store.build(p.path + "/" + p.store.payload)
	if err != nil {
		return err
	}
	crashpoint.Here("layer.begun")
	var written index.Index
	p.info, written, err = unpack(ctx, tar, b, p.store.limits)
	if err = errors.Join(err, b.close()); err != nil {
		return err
	}
	crashpoint.Here("layer.unpacked")
	data, err := json.Marshal(p.info)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{indexFile, index.Encode(written)}, {infoFile, append(data, '\n')}, {bootFile, p.store.boot}} {
		if err := os.WriteFile(p.path+"/"+f.name, f.content, 0o600); err != nil {
			return err
		}
	}
	crashpoint.Here("layer.described")
	return nil
}

func (p *pending) DiffID() digest.Digest { return p.info.DiffID }

func (p *pending) Info() Info { return p.info }

func (p *pending) Commit() error {
	if p.lock == nil {
		return errors.New("commit layer: it was committed or discarded before")
	}
	existed, err := p.publish()
	if err != nil {
		return fmt.Errorf("commit layer %s: %w", p.info.DiffID, err)
	}
	if existed {
		err = errors.Join(p.store.setAside(p.path), p.lock.Close())
	}
	p.lock = nil
	return err
}

// publish moves the folder into place. The store may have got the same layer
// meanwhile, from another pull; one is as good as the other.
func (p *pending) publish() (existed bool, err error) {
	s := p.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id := p.info.DiffID
	if _, existed = s.layers[id]; existed {
		return true, nil
	}
	final := s.path(layersDir, folderName(id))
	if _, err := os.Lstat(final); err == nil { // there, but load could not use it
		if err := s.setAside(final); err != nil {
			return false, err
		}
	}
	crashpoint.Here("layer.marked")
	if err := unix.Renameat2(unix.AT_FDCWD, p.path, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE); err != nil {
		return false, &os.LinkError{Op: "rename", Old: p.path, New: final, Err: err}
	}
	crashpoint.Here("layer.complete")
	s.layers[id] = p.info
	s.syncLater(id, p.lock)
	return false, nil
}

func (p *pending) Discard() error {
	if p.lock == nil {
		return nil
	}
	err := errors.Join(os.RemoveAll(p.path), p.lock.Close())
	p.lock = nil
	return err
}
