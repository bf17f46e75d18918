package podsandbox

import (
	"context"
	"fmt"
	"os"

	"cri-mini/internal/audit"
	"cri-mini/runtime/spec"
)

// What the world tells an audit.

func (w *world) Things(context.Context, string) ([]audit.Thing, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []audit.Thing
	for id := range w.tasks {
		list = append(list, w.thing("task of the monitor", id, func() { delete(w.tasks, id) }))
	}
	for id := range w.prepared {
		list = append(list, w.thing("control group", id, func() { delete(w.prepared, id) }))
	}
	for id := range w.sandboxes {
		list = append(list, w.thing("namespaces", id, func() { delete(w.sandboxes, id) }))
	}
	return append(list, w.extra...), w.fail["Things"]
}

func (w *world) thing(kind, id string, remove func()) audit.Thing {
	return audit.Thing{Kind: kind, Name: id, Owner: id, Remove: func(context.Context) error {
		if err := w.failure("Remove " + kind); err != nil {
			return err
		}
		w.change(remove)
		return nil
	}}
}

func (w *world) Connections() ([]audit.Thing, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []audit.Thing
	for id := range w.connected {
		list = append(list, w.thing("lease", id, func() { delete(w.connected, id) }))
	}
	return list, w.fail["Connections"]
}

func (w *world) LostConnections() ([]audit.Finding, error) { return nil, nil }
func (w *world) StoredLayers() ([]audit.Thing, error)      { return nil, nil }
func (w *world) MissingLayers() []audit.Finding            { return nil }

// SandboxNetNS waits while the monitor does not answer.
func (w *world) SandboxNetNS(ctx context.Context, id string) (*os.File, string, error) {
	w.mu.Lock()
	s, known := w.sandboxes[id]
	mute := w.mute
	w.mu.Unlock()
	if mute {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	if !known {
		return nil, "", fmt.Errorf("sandbox %s: %w", id, spec.ErrUnknown)
	}
	if s.HostNetwork {
		return nil, "", nil
	}
	f, err := os.Open("/proc/self/ns/net")
	return f, "/proc/self/ns/net", err
}
