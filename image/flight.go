package image

import (
	"context"
	"errors"
	"fmt"

	"cri-mini/image/layer"

	"github.com/opencontainers/go-digest"
)

// flight is the one download of a layer that all pulls share which need it.
// It ends early when nobody waits for it any more.
type flight struct {
	done   chan struct{}
	cancel context.CancelFunc

	// Guarded by Store.mu.
	waiters int
	report  []func(done int64)
	err     error // set before done is closed
}

// unpacker brings a layer into the store of layers.
type unpacker func(ctx context.Context, report func(done int64)) (layer.Info, error)

// ensure returns when the layer is there. The caller has counted its use, so a
// layer that is there stays.
func (s *Store) ensure(ctx context.Context, d digest.Digest, unpack unpacker, p *layerProgress) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		if _, ok := s.layers[d]; ok {
			s.mu.Unlock()
			p.end(Exists)
			return nil
		}
		f, joined := s.flights[d]
		if !joined {
			f = s.launch(ctx, d, unpack)
		}
		f.waiters++
		f.report = append(f.report, p.downloading)
		s.mu.Unlock()

		err := s.await(ctx, f)
		if err == nil {
			p.end(Done)
			return nil
		}
		// What stopped another pull, such as a password, need not stop this
		// one.
		if !joined {
			return err
		}
	}
}

// await returns when a flight has ended, or leaves it.
func (s *Store) await(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		s.leave(f)
		return ctx.Err()
	}
}

// launch begins a flight. s.mu is held.
func (s *Store) launch(ctx context.Context, d digest.Digest, unpack unpacker) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(s.end, cancel)
	f := &flight{done: make(chan struct{}), cancel: cancel}
	s.flights[d] = f
	s.running.Go(func() {
		defer cancel()
		defer stop()
		info, err := unpack(ctx, func(done int64) { s.reportFlight(f, done) })
		s.land(d, f, info, err)
	})
	return f
}

// land makes the layer known, or takes it away again if everyone left just
// before it was complete.
func (s *Store) land(d digest.Digest, f *flight, info layer.Info, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, d)
	f.err = err
	if err == nil || errors.Is(err, layer.ErrNotDurable) { // it is there
		s.addLayer(info)
		if s.uses[d] == 0 {
			s.removeLayer(d)
		}
	}
	close(f.done)
}

func (s *Store) reportFlight(f *flight, done int64) {
	s.mu.Lock()
	listeners := f.report
	s.mu.Unlock()
	for _, report := range listeners {
		report(done)
	}
}

func (s *Store) leave(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
	}
}

// use counts a pull's use of layers, so that they stay until its image is
// recorded. The result ends it.
func (s *Store) use(layers []digest.Digest) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.useLocked(layers)
}

// useLocked is use. s.mu is held.
func (s *Store) useLocked(layers []digest.Digest) (end func()) {
	for _, d := range layers {
		s.uses[d]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unuse(layers)
	}
}

// wrongDiffID is for a layer that unpacks to something else than the config
// promised.
func wrongDiffID(got, want digest.Digest) error {
	return fmt.Errorf("unpacked content has digest %s, the image config promises %s", got, want)
}
