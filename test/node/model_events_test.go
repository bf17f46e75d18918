package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/test/node/model"
)

// eventOf is the event that tells of a state.
var eventOf = map[model.ContainerState]criapi.ContainerEventType{
	model.Created: criapi.ContainerEventType_CONTAINER_CREATED_EVENT,
	model.Running: criapi.ContainerEventType_CONTAINER_STARTED_EVENT,
	model.Exited:  criapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
}

const deletedEvent = criapi.ContainerEventType_CONTAINER_DELETED_EVENT

// watcher reads events through all lives of a daemon and checks them: steps of
// one thing come in order, and what an event says of its pod is not older than
// the event.
type watcher struct {
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	told   map[string]criapi.ContainerEventType // by this life of the daemon
	last   int64
	events int
	wrong  []string
}

func watchEvents(d *daemon) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			stream, err := d.GetContainerEvents(ctx, &criapi.GetEventsRequest{}, grpc.WaitForReady(true))
			w.begin()
			for err == nil {
				var e *criapi.ContainerEventResponse
				if e, err = stream.Recv(); err == nil {
					w.take(e)
				}
			}
		}
	}()
	return w
}

func (w *watcher) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told, w.last = map[string]criapi.ContainerEventType{}, 0
}

func (w *watcher) take(e *criapi.ContainerEventResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	complain := func(format string, args ...any) {
		w.wrong = append(w.wrong, fmt.Sprintf("event %s of %s: ", e.ContainerEventType, e.ContainerId)+fmt.Sprintf(format, args...))
	}
	if before, known := w.told[e.ContainerId]; known && before > e.ContainerEventType {
		complain("came after %s", before)
	}
	if e.CreatedAt <= w.last {
		complain("is not younger than the one before")
	}
	w.told[e.ContainerId], w.last = e.ContainerEventType, e.CreatedAt
	if e.PodSandboxStatus == nil {
		complain("has no pod")
		return
	}
	if e.ContainerId == e.PodSandboxStatus.Id {
		return
	}
	var found *criapi.ContainerStatus
	for _, s := range e.ContainersStatuses {
		if s.Id == e.ContainerId {
			found = s
		}
	}
	switch {
	case (found == nil) != (e.ContainerEventType == deletedEvent):
		complain("the container is %v", found)
	case found != nil && eventOf[stateOf(found.State)] < e.ContainerEventType:
		complain("the container is %s", found.State)
	}
}

// reached waits until an event told that a thing is so far.
func (w *watcher) reached(id string, step criapi.ContainerEventType) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		told, known := w.told[id]
		w.mu.Unlock()
		if known && told >= step {
			return true
		}
	}
	return false
}

func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events
}

// end checks that everything was told to be gone.
func (w *watcher) end(t *testing.T) {
	t.Helper()
	eventually(t, "events tell that all is deleted", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, told := range w.told {
			if told != deletedEvent {
				return false
			}
		}
		return true
	})
	w.stop()
	<-w.done
	for _, wrong := range w.wrong {
		t.Error(wrong)
	}
}
