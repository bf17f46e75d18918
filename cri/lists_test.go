package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// received reads a stream to its end. No message may be empty.
func received[R, T any](t *testing.T, stream grpc.ServerStreamingClient[R], err error, items func(*R) []T) []T {
	t.Helper()
	var all []T
	for err == nil {
		var message *R
		if message, err = stream.Recv(); err == nil {
			batch := items(message)
			if len(batch) == 0 {
				t.Error("an empty message")
			}
			all = append(all, batch...)
		}
	}
	if err != io.EOF {
		t.Error(err)
	}
	return all
}

func TestStreamedListsAreTheLists(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod := w.pod(t, "a", nil)
	w.pod(t, "b", nil)
	w.container(t, pod, "made", false)
	w.container(t, pod, "runs", true)

	for _, filter := range []*criapi.PodSandboxFilter{nil, {Id: pod}, {Id: "none"}} {
		list, err := w.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := w.StreamPodSandboxes(ctx, &criapi.StreamPodSandboxesRequest{Filter: filter})
		got := received(t, stream, err, (*criapi.StreamPodSandboxesResponse).GetPodSandboxes)
		if !slices.EqualFunc(got, list.Items, func(a, b *criapi.PodSandbox) bool { return proto.Equal(a, b) }) {
			t.Errorf("pods with %v: streamed %v, listed %v", filter, got, list.Items)
		}
	}
	for _, filter := range []*criapi.ContainerFilter{nil, {LabelSelector: map[string]string{"part": "runs"}}, {Id: "none"}} {
		list, err := w.ListContainers(ctx, &criapi.ListContainersRequest{Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := w.StreamContainers(ctx, &criapi.StreamContainersRequest{Filter: filter})
		got := received(t, stream, err, (*criapi.StreamContainersResponse).GetContainers)
		if !slices.EqualFunc(got, list.Containers, func(a, b *criapi.Container) bool { return proto.Equal(a, b) }) {
			t.Errorf("containers with %v: streamed %v, listed %v", filter, got, list.Containers)
		}
	}
	stats, err := w.StreamContainerStats(ctx, &criapi.StreamContainerStatsRequest{})
	if got := received(t, stats, err, (*criapi.StreamContainerStatsResponse).GetContainerStats); len(got) != 1 || got[0].Attributes.Metadata.Name != "runs" {
		t.Errorf("stats %v, want those of the running container", got)
	}
	images, err := w.StreamImages(ctx, &criapi.StreamImagesRequest{})
	if got := received(t, images, err, (*criapi.StreamImagesResponse).GetImages); len(got) != 1 || got[0].RepoTags[0] != "example.com/app:1" {
		t.Errorf("images %v", got)
	}
	none, err := w.StreamImages(ctx, &criapi.StreamImagesRequest{Filter: &criapi.ImageFilter{Image: &criapi.ImageSpec{Image: "example.com/none"}}})
	if got := received(t, none, err, (*criapi.StreamImagesResponse).GetImages); len(got) != 0 {
		t.Errorf("images %v, want none", got)
	}
}

func TestListLongerThanAMessageArrivesWhole(t *testing.T) {
	w := newWorld(t)
	const pods = 20
	for i := range pods {
		w.pod(t, fmt.Sprint("p", i), func(c *criapi.PodSandboxConfig) {
			c.Annotations = map[string]string{"large": strings.Repeat("x", batchSize/8)}
		})
	}
	stream, err := w.StreamPodSandboxes(t.Context(), &criapi.StreamPodSandboxesRequest{})
	messages, seen := 0, map[string]bool{}
	for _, p := range received(t, stream, err, func(m *criapi.StreamPodSandboxesResponse) []*criapi.PodSandbox {
		messages++
		if size := proto.Size(m); size > batchSize {
			t.Errorf("a message of %d bytes", size)
		}
		return m.PodSandboxes
	}) {
		if seen[p.Id] {
			t.Errorf("%s came twice", p.Id)
		}
		seen[p.Id] = true
	}
	if len(seen) != pods || messages < 3 {
		t.Errorf("%d pods in %d messages, want %d in at least 3", len(seen), messages, pods)
	}
}

func TestBatches(t *testing.T) {
	item := func(size int) *criapi.AuthConfig { return &criapi.AuthConfig{Username: strings.Repeat("x", size)} }
	for _, c := range []struct {
		sizes []int
		want  []int // items in each message
	}{
		{nil, nil},
		{[]int{1}, []int{1}},
		{[]int{batchSize / 2, batchSize / 2}, []int{1, 1}},
		{[]int{batchSize / 3, batchSize / 3, batchSize / 3, 1}, []int{2, 2}},
		{[]int{1, 3 * batchSize, 1, 1}, []int{1, 1, 2}},
	} {
		var items []*criapi.AuthConfig
		for _, size := range c.sizes {
			items = append(items, item(size))
		}
		var got []int
		if err := inBatches(items, func(batch []*criapi.AuthConfig) error { got = append(got, len(batch)); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.sizes, got, c.want)
		}
	}
	lost := errors.New("client is gone")
	if err := inBatches([]*criapi.AuthConfig{item(batchSize), item(1)}, func([]*criapi.AuthConfig) error { return lost }); err != lost {
		t.Errorf("%v, want the error of the first message", err)
	}
}

func TestPanicFailsOneStreamWithItsName(t *testing.T) {
	var log bytes.Buffer
	err := interceptStream(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))(nil, noStream{t.Context()}, &grpc.StreamServerInfo{FullMethod: "/x/StreamImages"},
		func(any, grpc.ServerStream) error { panic("nil map") })
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "StreamImages panicked: nil map") || !strings.Contains(log.String(), "lists_test.go") {
		t.Fatalf("%v, log %s; want Internal with call and reason, and the place in the log", err, &log)
	}
}

// noStream is a stream on which nobody is.
type noStream struct{ ctx context.Context }

func (s noStream) Context() context.Context     { return s.ctx }
func (s noStream) SetHeader(metadata.MD) error  { return nil }
func (s noStream) SendHeader(metadata.MD) error { return nil }
func (s noStream) SetTrailer(metadata.MD)       {}
func (s noStream) SendMsg(any) error            { return io.ErrClosedPipe }
func (s noStream) RecvMsg(any) error            { return io.EOF }
