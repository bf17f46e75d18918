package cni

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a directory must be quiet before it is read: files are
// often written in several steps.
const settle = 100 * time.Millisecond

// Directory is the current state of a configuration directory. It is safe for
// concurrent use.
type Directory struct {
	path string

	mu    sync.Mutex
	seen  string // what the directory looked like when it was read
	list  *Conflist
	cause error
}

// NewDirectory names a directory; it may not exist yet.
func NewDirectory(path string) *Directory {
	return &Directory{path: path, cause: fmt.Errorf("%w in %s", ErrNone, path)}
}

// Current is the network that was read last, or why there is none.
func (d *Directory) Current() (*Conflist, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list, d.cause
}

// Refresh reads the directory if it looks different than at the last time, and
// tells whether it did.
func (d *Directory) Refresh() bool {
	looks := look(d.path)
	d.mu.Lock()
	defer d.mu.Unlock()
	if looks == d.seen {
		return false
	}
	d.seen = looks
	d.list, d.cause = Load(d.path)
	return true
}

// look describes the files of a directory without opening them, those of
// plugins in their own folders too.
func look(dir string) string {
	files, err := candidates(dir)
	if err != nil {
		return err.Error()
	}
	more, _ := filepath.Glob(filepath.Join(dir, "*", "*.conf")) // the pattern is good
	var b strings.Builder
	b.WriteString("read\n")
	for _, f := range append(files, more...) {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintln(&b, f, info.Size(), info.ModTime().UnixNano(), info.Mode())
		}
	}
	return b.String()
}

// Watch calls changed soon after something happens in the directory, until ctx
// ends. It sees the directory being made, removed and replaced as long as its
// parent stays. Callers look by themselves now and then: the kernel limits the
// number of watches, and cannot see into network file systems.
func (d *Directory) Watch(ctx context.Context, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", d.path, err)
	}
	defer w.Close()
	arm := func() {
		// A watch stays with the directory that had the name before.
		_ = w.Remove(d.path)
		_ = w.Add(d.path)
		_ = w.Add(filepath.Dir(d.path))
	}
	arm()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if filepath.Clean(e.Name) == filepath.Clean(d.path) {
				arm()
			} else if filepath.Dir(e.Name) != filepath.Clean(d.path) {
				continue // a neighbour in the parent
			}
			quiet.Reset(settle)
		case _, ok := <-w.Errors: // an overflow: look ourselves
			if !ok {
				return nil
			}
			quiet.Reset(settle)
		case <-quiet.C:
			changed()
		}
	}
}
