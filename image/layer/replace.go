package layer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ErrNotDurable says that a layer has taken its place, but a power cut may bring
// the old one back.
var ErrNotDurable = errors.New("the new layer has its place, but perhaps not yet on stable storage")

// Replaced is a layer that had its place taken, and that containers started
// before may still use.
type Replaced struct {
	DiffID digest.Digest
	Name   string // for RemoveReplaced
}

// Replace proves what was written by reading it from the disk, and only then
// gives it the place.
func (p *pending) Replace(ctx context.Context) error {
	if p.lock == nil {
		return errors.New("replace layer: it was committed or discarded before")
	}
	err := p.prove(ctx)
	if err == nil {
		err = p.takePlace()
	}
	if err != nil {
		return fmt.Errorf("replace layer %s: %w", p.info.DiffID, err)
	}
	return nil
}

func (p *pending) prove(ctx context.Context) error {
	if err := p.store.syncLayer(p.lock); err != nil {
		return err
	}
	if err := p.lock.Sync(); err != nil { // the mark too: the old one is given up for this
		return err
	}
	var differences []Difference
	err := p.store.verifyFolder(ctx, p.lock, func(d Difference) { differences = append(differences, d) })
	if err == nil && len(differences) > 0 {
		err = fmt.Errorf("the disk does not keep what is written: %s", differences[0])
	}
	return err
}

// takePlace opens first what has to be synced last: once the old layer has been
// moved, nothing may fail for want of a descriptor.
func (p *pending) takePlace() error {
	layers, err := os.Open(p.store.path(layersDir))
	if err != nil {
		return err
	}
	defer layers.Close()
	replaced, err := os.Open(p.store.path(replacedDir))
	if err != nil {
		return err
	}
	defer replaced.Close()
	if err := p.exchange(); err != nil {
		return err
	}
	// From here on p.path is the old layer, which containers may have mounted:
	// there is nothing left to discard, whatever fails.
	err = p.lock.Close()
	p.lock = nil
	if err = errors.Join(err, layers.Sync(), replaced.Sync()); err != nil {
		return fmt.Errorf("%w: %w", ErrNotDurable, err)
	}
	return nil
}

// exchange puts the new layer where the old one is, and the old one where
// nobody looks for layers. Killed between the two steps we leave the new one
// there, as if it were the old one.
func (p *pending) exchange() error {
	s := p.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id := p.info.DiffID
	spare := s.path(replacedDir, folderName(id)+"."+rand.Text())
	if err := os.Rename(p.path, spare); err != nil {
		return err
	}
	p.path = spare
	final := s.path(layersDir, folderName(id))
	err := unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE)
	if err == unix.ENOENT { // it was lost
		err = unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: spare, New: final, Err: err}
	}
	s.noSync(id) // of the old one
	s.layers[id] = p.info
	return nil
}

// Replaced lists the layers that Replace took the place of.
func (s *store) Replaced() ([]Replaced, error) {
	s.mu.Lock() // not between the two steps of an exchange
	defer s.mu.Unlock()
	folders, err := os.ReadDir(s.path(replacedDir))
	if err != nil {
		return nil, fmt.Errorf("layer store: %w", err)
	}
	var list []Replaced
	for _, folder := range folders {
		name, _, _ := strings.Cut(folder.Name(), ".")
		list = append(list, Replaced{digest.Digest(strings.Replace(name, "-", ":", 1)), folder.Name()})
	}
	return list, nil
}

func (s *store) RemoveReplaced(r Replaced) error {
	return wrap("remove replaced layer", s.setAside(s.path(replacedDir, r.Name)))
}
