package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"cri-mini/internal/atomicfile"
)

// A file is a line with the version and then one for each entry, appended when
// it has changed; of several with one number the last counts. A daemon that is
// killed while it writes leaves half a line, which the next one skips, and of
// what happened in its last moments nothing. The file belongs on a tmpfs: after
// a reboot there is nothing to explain.
type file struct {
	path string
	f    *os.File // nil: none could be made yet
	size int64
	base int64 // the size when it was written anew

	mu  sync.Mutex // held by the one who writes
	bad bool       // the last write did not succeed, and was reported

	wake, closing, closed chan struct{}
	once                  sync.Once // of the end
}

const (
	version = 1
	// together is how long changes wait for others, so that a call that is done
	// sooner is one line. It is also what a kill can lose.
	together = 50 * time.Millisecond
	// largest is what the file reaches before it is written anew.
	largest = 4 << 20
	// patience is how long the next try to write everything waits.
	patience = time.Second
)

type header struct{ Version int }

// Open continues the history in a file, and begins it where there is none. A
// file that cannot be read or written is no reason to stop anybody: then the
// history is in memory, and the file is tried again with the next change.
func Open(path string, log *slog.Logger) *History {
	h := New()
	h.log = log
	if err := atomicfile.Sweep(filepath.Dir(path)); err != nil {
		log.Warn("leftovers of the history not removed", "file", path, "err", err)
	}
	entries, err := Read(path)
	if err != nil {
		log.Warn("history begins anew", "file", path, "err", err)
	}
	for _, e := range entries {
		h.number = max(h.number, e.Number)
		h.keepLocked(e) // as it is: what is counted is counted
	}
	h.boundLocked()
	h.file = &file{path: path, wake: make(chan struct{}, 1), closing: make(chan struct{}), closed: make(chan struct{})}
	h.write()
	go h.save()
	return h
}

// Read gives what a daemon has written. What was at work then is cut off.
func Read(path string) ([]Entry, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	var head header
	if json.Unmarshal(first, &head) != nil || head.Version != version {
		return nil, nil // another program's; it explains, and nothing depends on it
	}
	found := map[uint64]Entry{}
	for line := range bytes.Lines(rest) {
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.Number == 0 {
			continue // cut off by a kill
		}
		if e.Gone {
			delete(found, e.Number)
			continue
		}
		e.Doing = ""
		e.CutOff = e.Ended.IsZero()
		found[e.Number] = e
	}
	var list []Entry
	for _, e := range found {
		list = append(list, e)
	}
	slices.SortFunc(list, byNumber)
	return list, nil
}

// changedLocked wakes the writer. It costs whoever calls next to nothing.
func (h *History) changedLocked(number uint64, ended *Entry) {
	if h.file == nil {
		return
	}
	h.unsaved[number] = ended
	select {
	case h.file.wake <- struct{}{}:
	default:
	}
}

// goneLocked takes an entry out of the file, also where only its beginning is
// in it.
func (h *History) goneLocked(number uint64) {
	h.changedLocked(number, &Entry{Number: number, Gone: true})
}

func (h *History) save() {
	defer close(h.file.closed)
	wait := together
	for {
		select {
		case <-h.file.wake:
		case <-h.file.closing:
			h.write()
			return
		}
		select {
		case <-time.After(wait):
		case <-h.file.closing:
		}
		wait = together
		if h.write() != nil {
			wait = patience
		}
	}
}

// write brings the file up to date. That it cannot is said once, and tried again
// with the next change.
func (h *History) write() error {
	h.file.mu.Lock()
	defer h.file.mu.Unlock()
	err := h.append()
	if err != nil && !h.file.bad {
		h.log.Warn("history is in memory only", "file", h.file.path, "err", err)
	}
	h.file.bad = err != nil
	return err
}

// append writes what has changed.
func (h *History) append() error {
	if h.file.f == nil || h.file.bad || h.file.size > max(largest, 2*h.file.base) {
		return h.rewrite()
	}
	text, err := h.takeUnsaved()
	if err != nil || len(text) == 0 {
		return err
	}
	n, err := h.file.f.Write(text)
	h.file.size += int64(n)
	return err
}

func (h *History) takeUnsaved() ([]byte, error) {
	h.mu.Lock()
	list := make([]Entry, 0, len(h.unsaved))
	for n, ended := range h.unsaved {
		if ended != nil {
			list = append(list, *ended)
		} else if d := h.working[n]; d != nil {
			d.written = true
			list = append(list, d.snapshotLocked())
		}
	}
	clear(h.unsaved)
	h.mu.Unlock()
	return encode(list)
}

// rewrite writes everything to a new file that takes the place of the old one.
func (h *History) rewrite() error {
	h.mu.Lock()
	var list []Entry
	for _, p := range h.pods {
		list = append(list, p.entries...)
	}
	for _, d := range h.working {
		d.written = true
		list = append(list, d.snapshotLocked())
	}
	clear(h.unsaved)
	h.mu.Unlock()
	text, err := encode(list)
	if err != nil {
		return err
	}
	first, err := json.Marshal(header{version})
	if err != nil {
		return err
	}
	text = append(append(first, '\n'), text...)
	if err := atomicfile.Volatile(h.file.path, text, 0o600); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	f, err := os.OpenFile(h.file.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if h.file.f != nil {
		h.file.f.Close()
	}
	h.file.f, h.file.size, h.file.base = f, int64(len(text)), int64(len(text))
	return nil
}

func encode(list []Entry) ([]byte, error) {
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for _, e := range list {
		if err := lines.Encode(e); err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
	}
	return text.Bytes(), nil
}

// Close writes what is not written yet.
func (h *History) Close() (err error) {
	if h.file != nil {
		h.file.once.Do(func() {
			close(h.file.closing)
			<-h.file.closed
			if h.file.f != nil {
				err = h.file.f.Close()
			}
		})
	}
	return err
}
