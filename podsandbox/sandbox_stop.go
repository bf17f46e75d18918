package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/mishap"
	"cri-mini/podsandbox/history"
)

// stopMark is what is written when a stop begins and when it is complete.
type stopMark struct{ At time.Time }

var errPodStops = fmt.Errorf("%w: the pod is being stopped", ErrFailedPrecondition)

// Stop kills all that runs in a pod and gives back its network. The pod and
// its containers remain to be looked at.
func (p *Pods) Stop(ctx context.Context, id string) error {
	s, err := p.Sandbox(id)
	if err != nil {
		return err
	}
	return s.stop(ctx)
}

func (s *Sandbox) stop(ctx context.Context) error {
	_, err := s.pods.ops.do(ctx, s.order(history.StopPod),
		func(ctx context.Context, op *operation) (string, error) { return s.ID, s.stopNow(ctx, op) })
	return err
}

func (s *Sandbox) stopNow(ctx context.Context, op *operation) error {
	if s.isStopped() {
		op.deed.Forget() // the kubelet repeats the call
		return nil
	}
	// Written first: a daemon that dies in the middle must not find a pod that
	// looks ready and lacks half of its containers. On a full disk it goes
	// without, for a stop is what leads to room: after such a death the pod
	// looks ready until the kubelet repeats the stop, or, without namespaces,
	// it is found to be lost and stopped.
	if err := s.dir.write("stopping", stopMark{time.Now()}); err != nil {
		s.pods.log.Warn("a pod stops without a mark on the disk", "pod", s.ID, "err", err)
	}
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	crashpoint.Here("stop-pod.marked")
	op.at("waiting for containers being created")
	if err := s.pods.ops.abandon(ctx, s.createKey(), errPodStops); err != nil {
		return err
	}
	op.at("killing containers")
	var kills errgroup.Group
	for _, c := range s.Containers() {
		kills.Go(func() error {
			return mishap.Caught(s.pods.log, "end container "+c.ID, func() error { return c.end(ctx) })
		})
	}
	if err := kills.Wait(); err != nil {
		return err
	}
	crashpoint.Here("stop-pod.containers-ended")
	op.at("giving back network and namespaces")
	if err := s.release(ctx); err != nil {
		return err
	}
	crashpoint.Here("stop-pod.released")
	err := os.Rename(s.dir.path("stopping"), s.dir.path("stopped"))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // it could not be written
		return err
	}
	crashpoint.Here("stop-pod.complete")
	s.mu.Lock()
	s.stopped = true
	s.ips = nil
	s.mu.Unlock()
	s.tell()
	return nil
}

func (s *Sandbox) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// Remove takes a pod away with all its containers. What runs is killed.
func (p *Pods) Remove(ctx context.Context, id string) error {
	s, err := p.Sandbox(id)
	if err != nil {
		return err
	}
	_, err = p.ops.do(ctx, s.order(history.RemovePod),
		func(ctx context.Context, op *operation) (string, error) { return s.ID, s.remove(ctx, op) })
	return err
}

func (s *Sandbox) remove(ctx context.Context, op *operation) error {
	op.at("stopping it")
	if err := s.stop(ctx); err != nil {
		return err
	}
	crashpoint.Here("remove-pod.stopped")
	op.at("removing containers")
	var removals errgroup.Group
	for _, c := range s.Containers() {
		removals.Go(func() error { return c.remove(ctx) })
	}
	if err := removals.Wait(); err != nil {
		return err
	}
	crashpoint.Here("remove-pod.containers-gone")
	if err := s.leave(); err != nil {
		return err
	}
	crashpoint.Here("remove-pod.marked")
	if err := os.RemoveAll(s.dir.path()); err != nil {
		return err
	}
	crashpoint.Here("remove-pod.folder-gone")
	s.forget()
	s.tell()
	return nil
}

// forget takes the pod out of the tables, which frees its name.
func (s *Sandbox) forget() {
	p := s.pods
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sandboxes, s.ID)
	delete(p.names, nameOf(s.config.Metadata))
	s.unlabel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
}

// leave marks the folder as one to be taken away. It may be called again.
func (s *Sandbox) leave() error {
	s.files.Lock()
	defer s.files.Unlock()
	if s.dir.mark == removing {
		return nil
	}
	return s.dir.move(removing)
}
