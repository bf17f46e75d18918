package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"cri-mini/internal/undo"
	"cri-mini/podsandbox/network/internal/netns"
)

// form is a way to connect pods. The entry's record is complete but for what
// the form decides; connect saves it before it acts.
type form interface {
	name() string
	connect(ctx context.Context, e *entry, pod Pod, ns *os.File) error
	disconnect(ctx context.Context, e *entry, ns *os.File) error
}

// patience is how often Teardown may fail for a pod. After that the debt stays
// on record for Collect, and the pod's end is not held up any longer.
const patience = 4

// Setup connects a pod and opens its host ports. When it fails, nothing is left.
func (n *Network) Setup(ctx context.Context, pod Pod) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	res, err := n.setup(ctx, pod)
	if err = inPod(pod, err); err != nil {
		return Result{}, fmt.Errorf("network of pod %s: %w", pod.ID, err)
	}
	return res, nil
}

func (n *Network) setup(ctx context.Context, pod Pod) (Result, error) {
	if !validID.MatchString(pod.ID) {
		return Result{}, fmt.Errorf("pod id %q: not letters, digits and dashes only", pod.ID)
	}
	ports, err := hostPorts(pod.Ports)
	if err != nil {
		return Result{}, err
	}
	via, err := n.form()
	if err != nil {
		return Result{}, err
	}
	var back undo.Stack
	defer back.Run()
	ns, err := openPod(pod)
	if err != nil {
		return Result{}, err
	}
	if ns != pod.NetNSFile {
		defer ns.Close()
	}
	e := &entry{since: time.Now(), record: record{
		ID: pod.ID, Name: pod.Name, Namespace: pod.Namespace, Form: via.name(), Ports: ports}}
	e.op.Lock()
	defer e.op.Unlock()
	if err := n.enlist(e); err != nil {
		return Result{}, err
	}
	back.Add(func() error { n.delist(e); return nil })
	if err := n.checkListeners(ports); err != nil {
		return Result{}, err
	}
	if err := via.connect(ctx, e, pod, ns); err != nil {
		if e.Failures > 0 { // it could not be undone: Collect will try again
			back.Keep()
		}
		return Result{}, err
	}
	back.Keep()
	n.mu.Lock()
	defer n.mu.Unlock()
	e.ready = true
	return e.result(), nil
}

func openPod(pod Pod) (*os.File, error) {
	if pod.NetNSFile != nil {
		return pod.NetNSFile, nil
	}
	if pod.NetNS == "" {
		return nil, errors.New("no network namespace given")
	}
	return netns.Open(pod.NetNS)
}

// enlist makes the pod and its host ports known, so that no other Setup takes
// them.
func (n *Network) enlist(e *entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods[e.ID] != nil {
		return errors.New("is set up already")
	}
	if err := n.ports.reserve(&e.record); err != nil {
		return err
	}
	n.pods[e.ID] = e
	return nil
}

func (n *Network) delist(e *entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports.release(&e.record)
	delete(n.pods, e.ID)
}

// Teardown disconnects a pod and gives back its addresses and host ports. It
// may be repeated and needs no namespace. The caller drops the namespace right
// before or after: with it goes the veth pair of the built-in form.
func (n *Network) Teardown(ctx context.Context, pod Pod) error {
	n.mu.Lock()
	e := n.pods[pod.ID]
	n.mu.Unlock()
	if e == nil {
		return nil
	}
	e.op.Lock() // a Setup under way ends first
	defer e.op.Unlock()
	n.mu.Lock()
	gone := n.pods[pod.ID] != e
	e.leaving = true
	n.mu.Unlock()
	if gone {
		return nil
	}
	ns, err := openPod(pod)
	if err != nil {
		ns = nil // gone, or its path names something else by now
	} else if ns != pod.NetNSFile {
		defer ns.Close()
	}
	if err := n.formOf(&e.record).disconnect(ctx, e, ns); err != nil {
		return n.owe(e, err)
	}
	n.delist(e)
	return nil
}

// owe notes that a pod could not be taken down.
func (n *Network) owe(e *entry, cause error) error {
	cause = fmt.Errorf("disconnect pod %s: %w", e.ID, cause)
	n.mu.Lock()
	e.Failures++
	rec := e.record
	n.mu.Unlock()
	if err := n.records.save(rec); err != nil {
		return errors.Join(cause, err)
	}
	if rec.Failures < patience {
		return cause
	}
	n.log.Warn("a pod cannot be disconnected; Collect tries again", "pod", e.ID, "err", cause)
	return nil
}

// form is how a new pod is connected.
func (n *Network) form() (form, error) {
	if n.opt.Mode == ModeBuiltin {
		return n.builtin, nil
	}
	configured, err := n.external.configured()
	if err != nil {
		return nil, err
	}
	if configured {
		return n.external, nil
	}
	return n.builtin, nil
}

// formOf is how a pod was connected.
func (n *Network) formOf(r *record) form {
	if r.Form == formCNI {
		return n.external
	}
	return n.builtin
}
