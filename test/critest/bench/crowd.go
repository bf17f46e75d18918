package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ask times the questions that a kubelet asks about all pods at once.
func (s *subject) ask(t *table, pods int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, q := range []struct {
		name string
		ask  func() (int, error)
	}{
		{"ListPodSandbox", func() (int, error) { return s.list(ctx) }},
		{"ListContainers", func() (int, error) {
			r, err := s.runtime.ListContainers(ctx, &criapi.ListContainersRequest{})
			return len(r.GetContainers()), err
		}},
		{"ListContainerStats", func() (int, error) {
			r, err := s.runtime.ListContainerStats(ctx, &criapi.ListContainerStatsRequest{})
			return len(r.GetStats()), err
		}},
		{"ListPodSandboxStats", func() (int, error) {
			r, err := s.runtime.ListPodSandboxStats(ctx, &criapi.ListPodSandboxStatsRequest{})
			return len(r.GetStats()), err
		}},
	} {
		for range 20 {
			found := 0
			if _, err := t.time(fmt.Sprintf("%s of %d pods", q.name, pods), s.name, func() (err error) { found, err = q.ask(); return }); err != nil {
				return err
			}
			if found != pods {
				return fmt.Errorf("%s: gives %d of %d pods", q.name, found, pods)
			}
		}
	}
	return nil
}

func (s *subject) list(ctx context.Context) (int, error) {
	r, err := s.runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{}, grpc.WaitForReady(true))
	return len(r.GetItems()), err
}

// rest measures the processor time that pods cost about which nobody asks.
func (s *subject) rest(t *table, pods int) error {
	const long = 10 * time.Second
	before, err := s.place.CPU()
	if err != nil {
		return err
	}
	time.Sleep(long)
	after, err := s.place.CPU()
	t.note(fmt.Sprintf("processor time of %d idle pods", pods), s.name, (after-before).Seconds()*1000/long.Seconds(), "ms/s")
	return err
}

// restart kills the daemon and times the next one, from its start to the first
// complete answer.
func (s *subject) restart(t *table, pods int) error {
	if err := s.daemon.Kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := t.time(fmt.Sprintf("daemon killed with %d pods, until they are listed", pods), s.name, func() error {
		if err := s.daemon.Restart(); err != nil {
			return err
		}
		found, err := s.list(ctx)
		if err == nil && found != pods {
			err = fmt.Errorf("lists %d of %d pods", found, pods)
		}
		return err
	})
	return err
}
