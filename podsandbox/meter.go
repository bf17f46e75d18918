package podsandbox

import (
	"sync"
	"time"

	"cri-mini/runtime/spec"
)

// meter is what is remembered of a container's or pod's use between two
// questions. Its zero value is ready.
type meter struct {
	mu  sync.Mutex // guards what follows; taken last
	cpu rate

	// peaks are the highest uses of huge pages that were seen.
	peaks map[string]uint64

	// writable is the latest figure of the writable layer; without a time
	// there is none yet.
	writable spec.DiskUsage
	queued   bool      // a count is asked for or at work
	active   time.Time // when processor time was last seen to grow
	counted  time.Time // when a complete one began
	idleAt   uint64    // processor time used by then
	notUntil time.Time // when the next may begin
}

// begin says that nothing was used before this moment.
func (m *meter) begin(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cpu, m.active = rate{base: sample{at: at}, last: sample{at: at}}, at
}

// see takes note of a measurement. It gives the processor time used per second
// lately, in nanoseconds; nil while that is not known.
func (m *meter) see(s spec.Stats) *uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range s.Hugetlb {
		if h.Usage > m.peaks[h.PageSize] {
			if m.peaks == nil {
				m.peaks = map[string]uint64{}
			}
			m.peaks[h.PageSize] = h.Usage
		}
	}
	return m.cpu.observe(sample{s.At, s.CPU.Nanos})
}

// lastCPU is the highest processor time that was told to anyone.
func (m *meter) lastCPU() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cpu.newest
}

func (m *meter) hugetlbPeaks() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	peaks := make(map[string]uint64, len(m.peaks))
	for size, n := range m.peaks {
		peaks[size] = n
	}
	return peaks
}

// layer is the latest figure of the writable layer; nil before the first.
func (m *meter) layer() *spec.DiskUsage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writable.At.IsZero() {
		return nil
	}
	u := m.writable
	return &u
}

// rate is the use of processors between two samples, one of now and one at
// least rateWindow older: over less, the figure would be noise.
type rate struct {
	base, last sample
	newest     uint64 // of all that were observed
}

type sample struct {
	at   time.Time
	used uint64
}

const rateWindow = time.Second

func (r *rate) observe(now sample) *uint64 {
	r.newest = max(r.newest, now.used)
	if now.at.Before(r.last.at) { // somebody looked later and was here first
		return r.last.since(r.base)
	}
	if r.last.at.IsZero() || now.used < r.last.used {
		r.base, r.last = now, now // the first, or counted anew
		return nil
	}
	base := r.base
	if now.at.Sub(r.last.at) >= rateWindow {
		base = r.last
		r.base, r.last = r.last, now
	}
	return now.since(base)
}

// since is nil where no time has passed.
func (s sample) since(base sample) *uint64 {
	passed := s.at.Sub(base.at)
	if passed <= 0 || s.used < base.used {
		return nil
	}
	n := uint64(float64(s.used-base.used) / passed.Seconds())
	return &n
}
