package cri

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestEventsTellPodAndAllItsContainers(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(t, "a", nil)
	runs := w.container(t, pod, "runs", true)
	stream, err := w.GetContainerEvents(t.Context(), &criapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	next := func(id string, kind criapi.ContainerEventType, states ...criapi.ContainerState) {
		t.Helper()
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []criapi.ContainerState
		for _, c := range e.ContainersStatuses {
			got = append(got, c.State)
		}
		if e.ContainerId != id || e.ContainerEventType != kind || e.CreatedAt <= last || e.PodSandboxStatus.Metadata.Name != "a" ||
			e.PodSandboxStatus.Network.Ip == "" || !slices.Equal(got, states) {
			t.Errorf("%v, want %v of %s with %v", e, kind, id, states)
		}
		last = e.CreatedAt
	}
	next(pod, criapi.ContainerEventType_CONTAINER_STARTED_EVENT, criapi.ContainerState_CONTAINER_RUNNING)
	next(runs, criapi.ContainerEventType_CONTAINER_STARTED_EVENT, criapi.ContainerState_CONTAINER_RUNNING)
	made := w.container(t, pod, "made", false)
	next(made, criapi.ContainerEventType_CONTAINER_CREATED_EVENT, criapi.ContainerState_CONTAINER_RUNNING, criapi.ContainerState_CONTAINER_CREATED)
	if _, err := w.StopContainer(t.Context(), &criapi.StopContainerRequest{ContainerId: runs, Timeout: 5}); err != nil {
		t.Fatal(err)
	}
	next(runs, criapi.ContainerEventType_CONTAINER_STOPPED_EVENT, criapi.ContainerState_CONTAINER_EXITED, criapi.ContainerState_CONTAINER_CREATED)
	if _, err := w.RemoveContainer(t.Context(), &criapi.RemoveContainerRequest{ContainerId: runs}); err != nil {
		t.Fatal(err)
	}
	next(runs, criapi.ContainerEventType_CONTAINER_DELETED_EVENT, criapi.ContainerState_CONTAINER_CREATED)
}

func TestStreamOfEventsEndsAtOnceWhenTheServerStops(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "a", nil)
	stream, err := w.GetContainerEvents(t.Context(), &criapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // it is served
		t.Fatal(err)
	}
	began := time.Now()
	w.stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "going down" {
		t.Errorf("%v, want Unavailable", err)
	}
	if took := time.Since(began); took > stopPatience/2 {
		t.Errorf("the stop took %s: it waited for the stream", took)
	}
}

func TestCancelledSubscriptionsLeaveNothing(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "a", nil)
	subscribe := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := w.GetContainerEvents(ctx, &criapi.GetEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	subscribe() // what a connection needs once
	before := runtime.NumGoroutine()
	for range 1000 {
		subscribe()
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+5 {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
