package image

import (
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Phases of a layer during a pull.
const (
	Waiting     = "waiting"
	Downloading = "downloading"
	Done        = "done"   // downloaded and unpacked
	Exists      = "exists" // it was there already
)

// Progress tells how far one layer is. Every layer is Waiting first, and Done
// or Exists last unless the pull fails.
type Progress struct {
	Layer digest.Digest // as in the manifest; the diff id where there is none
	Phase string
	Done  int64 // bytes, compressed
	Total int64
}

// reportEvery keeps a fast download from drowning its audience.
const reportEvery = 50 * time.Millisecond

// progress calls back for one pull, one call at a time, and not after the pull
// has returned.
type progress struct {
	mu     sync.Mutex
	call   func(Progress) // nil: nobody listens
	layers []*layerProgress
}

// String is how far the whole pull is.
func (p *progress) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	complete, done, total := 0, int64(0), int64(0)
	for _, l := range p.layers {
		if l.state.Phase == Done || l.state.Phase == Exists {
			complete++
		}
		done, total = done+l.state.Done, total+l.state.Total
	}
	return fmt.Sprintf("%d of %d layers, %d of %d bytes", complete, len(p.layers), done, total)
}

func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call = nil
}

// layerProgress is the part of one layer.
type layerProgress struct {
	to    *progress
	state Progress  // guarded by to.mu, with last
	last  time.Time // of the last call
}

func (p *progress) layer(d digest.Digest, total int64) *layerProgress {
	l := &layerProgress{to: p, state: Progress{Layer: d, Phase: Waiting, Total: total}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers = append(p.layers, l)
	l.send()
	return l
}

// send calls back. to.mu is held.
func (l *layerProgress) send() {
	if l.to.call != nil {
		l.to.call(l.state)
	}
}

func (l *layerProgress) downloading(done int64) {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	first := l.state.Phase == Waiting
	if l.state.Phase != Downloading && !first {
		return
	}
	l.state.Phase, l.state.Done = Downloading, done
	if now := time.Now(); first || done == l.state.Total || now.Sub(l.last) >= reportEvery {
		l.last = now
		l.send()
	}
}

func (l *layerProgress) end(phase string) {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	l.state.Phase, l.state.Done = phase, l.state.Total
	l.send()
}
