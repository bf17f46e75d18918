package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/image"
	"cri-mini/internal/audit"
	"cri-mini/podsandbox/network"
	"cri-mini/runtime/spec"
)

// world is what outlives a daemon: monitor, kernel, network and images. One
// value answers all three interfaces. Everything it was asked to make can be
// counted.
type world struct {
	mu        sync.Mutex
	sandboxes map[string]spec.Sandbox
	mounted   map[string]bool
	prepared  map[string]spec.Container
	tasks     map[string]Task
	connected map[string]network.Pod
	holds     map[string]map[string]bool // by owner
	updates   map[string]spec.Resources

	groups     map[string]spec.Stats // by path of the cgroup
	interfaces map[string][]spec.Interface
	layers     map[string]spec.DiskUsage
	counted    int // writable layers

	images map[string]image.Image // by name
	passwd string

	apparmor *fakeAppArmor
	selinux  fakeSELinux

	exits    chan TaskExit
	calls    []string
	fail     map[string]error          // by call
	block    map[string]chan struct{}  // by call; closed to let it go on
	around   func(call string)         // before and after each call that changes something
	extra    []audit.Thing             // for an audit
	mute     bool                      // the monitor does not answer
	obey     bool                      // programs end on the stop signal
	programs map[string]*fakeExecution // by argv[0], for Exec
	logs     []string                  // reopened
	dead     chan struct{}             // closed: the daemon that calls was killed
	view     *fakeView                 // what StartAttached gives
	nextPID  int
	nextIP   byte
}

var errDead = errors.New("the daemon was killed")

func newWorld() *world {
	w := &world{
		sandboxes: map[string]spec.Sandbox{}, mounted: map[string]bool{}, prepared: map[string]spec.Container{},
		tasks: map[string]Task{}, connected: map[string]network.Pod{}, holds: map[string]map[string]bool{},
		updates: map[string]spec.Resources{},
		groups:  map[string]spec.Stats{}, interfaces: map[string][]spec.Interface{}, layers: map[string]spec.DiskUsage{},
		passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n",
		exits:  make(chan TaskExit, 64), fail: map[string]error{}, block: map[string]chan struct{}{},
		obey: true, nextPID: 100, dead: make(chan struct{}),
		apparmor: new(fakeAppArmor),
	}
	w.images = map[string]image.Image{}
	for _, name := range []string{"app", "tools"} {
		i := image.Image{
			ID: "sha256:" + strings.Repeat(name[:1], 64), Tags: []string{name}, Digests: []string{"registry.test/" + name + "@sha256:" + strings.Repeat("d", 64)},
			Config: image.Config{Cmd: []string{"/bin/app"}, User: "web", Env: []string{"FROM=image"}},
		}
		w.images[name], w.images[i.ID] = i, i
	}
	return w
}

// copy is the world as a daemon finds it that starts now.
func (w *world) copy() *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := newWorld()
	c.sandboxes, c.mounted, c.prepared = maps.Clone(w.sandboxes), maps.Clone(w.mounted), maps.Clone(w.prepared)
	c.tasks, c.connected, c.updates = maps.Clone(w.tasks), maps.Clone(w.connected), maps.Clone(w.updates)
	// Holds live in the memory of the daemon.
	c.images, c.nextPID, c.nextIP, c.obey = w.images, w.nextPID, w.nextIP, w.obey
	c.apparmor, c.selinux = w.apparmor, w.selinux
	if wait, blocked := w.block["Collect"]; blocked {
		c.block["Collect"] = wait
	}
	return c
}

// reboot loses what is not on the disk.
func (w *world) reboot() *world {
	c := w.copy()
	clear(c.sandboxes)
	clear(c.mounted)
	clear(c.prepared)
	clear(c.tasks)
	return c
}

// call notes a call and gives the error that the test wants.
func (w *world) call(ctx context.Context, name, id string) (func(), error) {
	w.mu.Lock()
	w.calls = append(w.calls, name+" "+id)
	wait, err, around := w.block[name], w.fail[name], w.around
	w.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
		case <-w.dead:
		}
	}
	select {
	case <-w.dead:
		return func() {}, errDead
	default:
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if around == nil || err != nil {
		return func() {}, err
	}
	around("before " + name)
	return func() { around("after " + name) }, nil
}

func (w *world) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// failure is what a call should answer.
func (w *world) failure(call string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail[call]
}

// left tells what there is, one line for each thing.
func (w *world) left() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for id := range w.sandboxes {
		list = append(list, "namespaces "+id)
	}
	for id := range w.mounted {
		list = append(list, "rootfs "+id)
	}
	for id := range w.prepared {
		list = append(list, "prepared "+id)
	}
	for id := range w.tasks {
		list = append(list, "task "+id)
	}
	for id := range w.connected {
		list = append(list, "network "+id)
	}
	for owner := range w.holds {
		list = append(list, "hold of "+owner)
	}
	slices.Sort(list)
	return list
}

func (w *world) CreateSandbox(ctx context.Context, s spec.Sandbox) (started Started, err error) {
	done, err := w.call(ctx, "CreateSandbox", s.ID)
	if err != nil {
		return Started{}, err
	}
	w.change(func() {
		w.sandboxes[s.ID] = s
		if s.SharedPID {
			w.nextPID++
			started = Started{PID: w.nextPID, At: time.Now()}
			w.tasks[s.ID] = Task{Started: started}
		}
	})
	done()
	return started, nil
}

func (w *world) RemoveSandbox(ctx context.Context, id string) error {
	done, err := w.call(ctx, "RemoveSandbox", id)
	if err != nil {
		return err
	}
	w.exit(id, spec.Exit{Code: 128 + int(syscall.SIGKILL)})
	w.change(func() {
		delete(w.sandboxes, id)
		delete(w.tasks, id)
	})
	done()
	return nil
}

type fakeRoot struct{ w *world }

func (r fakeRoot) ReadFile(name string, limit int64) ([]byte, error) {
	if name == "etc/passwd" {
		return []byte(r.w.passwd), nil
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}
func (r fakeRoot) Close() error { return nil }

func (w *world) MountRootfs(ctx context.Context, id string, r spec.Rootfs) (Rootfs, error) {
	done, err := w.call(ctx, "MountRootfs", id)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.Writable, 0o700); err != nil {
		return nil, err
	}
	w.change(func() { w.mounted[id] = true })
	done()
	return fakeRoot{w}, nil
}

func (w *world) Prepare(ctx context.Context, c spec.Container) error {
	done, err := w.call(ctx, "Prepare", c.ID)
	if err != nil {
		return err
	}
	w.mu.Lock()
	_, known := w.sandboxes[c.Sandbox]
	mounted := w.mounted[c.ID]
	if known && mounted {
		w.prepared[c.ID] = c
	}
	w.mu.Unlock()
	if !known || !mounted {
		return fmt.Errorf("prepare %s: sandbox %t, root %t", c.ID, known, mounted)
	}
	done()
	return nil
}

func (w *world) Start(ctx context.Context, id string) (Started, error) {
	done, err := w.call(ctx, "Start", id)
	if err != nil {
		return Started{}, err
	}
	w.mu.Lock()
	if _, known := w.prepared[id]; !known {
		w.mu.Unlock()
		return Started{}, fmt.Errorf("start %s: not prepared", id)
	}
	w.nextPID++
	started := Started{PID: w.nextPID, At: time.Now()}
	w.tasks[id] = Task{Started: started}
	w.mu.Unlock()
	done()
	return started, nil
}

func (w *world) StartAttached(ctx context.Context, id string) (Started, Attachment, error) {
	started, err := w.Start(ctx, id)
	if err != nil {
		return Started{}, nil, err
	}
	return started, w.view, nil
}

// fakeView is an attachment that can be closed.
type fakeView struct {
	Attachment
	closed bool
}

func (v *fakeView) Close() error { v.closed = true; return nil }

// exit ends a program, as the monitor would tell.
func (w *world) exit(id string, x spec.Exit) {
	w.mu.Lock()
	task, known := w.tasks[id]
	if !known || task.Exit != nil {
		w.mu.Unlock()
		return
	}
	x.At = time.Now()
	task.Exit = &x
	w.tasks[id] = task
	w.mu.Unlock()
	w.exits <- TaskExit{ID: id, Exit: x}
}

func (w *world) Signal(id string, signal int) error {
	done, err := w.call(context.Background(), fmt.Sprintf("Signal(%d)", signal), id)
	if err != nil {
		return err
	}
	if w.obey {
		w.exit(id, spec.Exit{Code: 128 + signal})
	}
	done()
	return nil
}

func (w *world) Kill(id string) error {
	done, err := w.call(context.Background(), "Kill", id)
	if err != nil {
		return err
	}
	w.exit(id, spec.Exit{Code: 128 + int(syscall.SIGKILL)})
	done()
	return nil
}

func (w *world) Remove(ctx context.Context, c spec.Container) error {
	done, err := w.call(ctx, "Remove", c.ID)
	if err != nil {
		return err
	}
	w.exit(c.ID, spec.Exit{Code: 128 + int(syscall.SIGKILL)})
	w.change(func() {
		delete(w.mounted, c.ID)
		delete(w.prepared, c.ID)
		delete(w.tasks, c.ID)
	})
	if err := os.RemoveAll(c.Rootfs.Writable); err != nil {
		return err
	}
	done()
	return nil
}

func (w *world) Tasks(context.Context) (map[string]Task, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.tasks), w.fail["Tasks"]
}

func (w *world) Exits() <-chan TaskExit { return w.exits }

func (w *world) ReopenLog(ctx context.Context, id, path string) error {
	done, err := w.call(ctx, "ReopenLog", id)
	w.change(func() { w.logs = append(w.logs, path) })
	done()
	return err
}

func (w *world) Update(ctx context.Context, c spec.Container, r spec.Resources) error {
	done, err := w.call(ctx, "Update", c.ID)
	if err != nil {
		return err
	}
	w.change(func() { w.updates[c.ID] = r })
	done()
	return nil
}

func (w *world) Stats(group string, _ int64) (spec.Stats, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u, known := w.groups[group]
	if !known {
		return u, fmt.Errorf("group %s: %w", group, spec.ErrUnknown)
	}
	u.At = time.Now()
	return u, w.fail["Stats"]
}

func (w *world) CPUTime(group string) (uint64, error) {
	u, err := w.Stats(group, 0)
	return u.CPU.Nanos, err
}

func (w *world) Inside(string) (spec.Inside, error) {
	return spec.Inside{Threads: 2}, w.failure("Inside")
}

func (w *world) Interfaces(_ context.Context, id string) ([]spec.Interface, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.interfaces[id], w.fail["Interfaces"]
}

func (w *world) Writable(ctx context.Context, r spec.Rootfs) (spec.DiskUsage, error) {
	w.mu.Lock()
	wait := w.block["Writable"]
	w.counted++
	w.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return spec.DiskUsage{}, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.layers[filepath.Base(r.Writable)]
	u.At = time.Now()
	return u, w.fail["Writable"]
}

func (w *world) FileSystem(string) (spec.FileSystem, error) {
	return spec.FileSystem{Device: "/dev/fake", Bytes: 1 << 30}, w.failure("FileSystem")
}

func (w *world) Attach(ctx context.Context, id string) (Attachment, error) {
	return nil, unix.ENOTCONN
}

// fakeExecution is a program that an exec runs.
type fakeExecution struct {
	stdout, stderr []byte
	code           int
	takes          time.Duration
	keepsOutput    bool // something it left in the background

	process spec.Process
	killed  chan struct{}
	closed  chan struct{}
	once    sync.Once
}

func (w *world) Exec(ctx context.Context, id string, p spec.Process, _ ExecIO) (Execution, error) {
	done, err := w.call(ctx, "Exec", id)
	if err != nil {
		return nil, err
	}
	done()
	e := w.programs[p.Args[0]]
	if e == nil {
		return nil, fmt.Errorf("%s: %w", p.Args[0], fs.ErrNotExist)
	}
	e.process, e.killed, e.closed, e.once = p, make(chan struct{}), make(chan struct{}), sync.Once{}
	return e, nil
}

func (e *fakeExecution) PID() int                          { return 4242 }
func (e *fakeExecution) Stdin() io.WriteCloser             { return nil }
func (e *fakeExecution) Stdout() io.ReadCloser             { return e.stream(e.stdout) }
func (e *fakeExecution) Stderr() io.ReadCloser             { return e.stream(e.stderr) }
func (e *fakeExecution) Resize(width, height uint16) error { return nil }
func (e *fakeExecution) Kill() error                       { close(e.killed); return nil }
func (e *fakeExecution) Close() error                      { e.once.Do(func() { close(e.closed) }); return nil }
func (e *fakeExecution) Wait(ctx context.Context) (int, error) {
	select {
	case <-time.After(e.takes):
		return e.code, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (e *fakeExecution) stream(data []byte) io.ReadCloser {
	return &fakeStream{e: e, data: data}
}

type fakeStream struct {
	e    *fakeExecution
	data []byte
}

func (s *fakeStream) Read(p []byte) (int, error) {
	if len(s.data) > 0 {
		n := copy(p, s.data)
		s.data = s.data[n:]
		return n, nil
	}
	if s.e.keepsOutput {
		<-s.e.closed
	}
	return 0, io.EOF
}
func (s *fakeStream) Close() error { return nil }

func (w *world) Setup(ctx context.Context, p network.Pod) (network.Result, error) {
	done, err := w.call(ctx, "Setup", p.ID)
	if err != nil {
		return network.Result{}, err
	}
	for _, port := range p.Ports {
		if other := w.portOwner(port.HostPort); other != "" {
			return network.Result{}, fmt.Errorf("host port %d: taken by pod %s", port.HostPort, other)
		}
	}
	w.change(func() { w.connected[p.ID] = p })
	done()
	result, _ := w.Result(p.ID)
	return result, nil
}

func (w *world) portOwner(port uint16) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, p := range w.connected {
		if slices.ContainsFunc(p.Ports, func(q network.PortMapping) bool { return q.HostPort == port }) {
			return id
		}
	}
	return ""
}

func (w *world) Teardown(ctx context.Context, p network.Pod) error {
	done, err := w.call(ctx, "Teardown", p.ID)
	if err != nil {
		return err
	}
	w.change(func() { delete(w.connected, p.ID) })
	done()
	return nil
}

func (w *world) Result(id string) (network.Result, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.connected[id]
	return network.Result{IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 88, 0, 2})}}, known
}

func (w *world) Collect(live []string) error {
	done, err := w.call(context.Background(), "Collect", "")
	if err != nil {
		return err
	}
	w.change(func() {
		maps.DeleteFunc(w.connected, func(id string, _ network.Pod) bool { return !slices.Contains(live, id) })
	})
	done()
	return nil
}

func (w *world) Get(name string) (image.Image, error) {
	i, known := w.images[name]
	if !known {
		return i, fmt.Errorf("image %q: %w", name, image.ErrNotFound)
	}
	return i, nil
}

func (w *world) Layers(id string) ([]image.Layer, error) {
	return []image.Layer{{Path: "/layers/" + id[7:10], Form: "directory"}}, w.failure("Layers")
}

func (w *world) Hold(id, owner string) error {
	if _, known := w.images[id]; !known {
		return errors.New("hold: no such image")
	}
	w.change(func() {
		if w.holds[owner] == nil {
			w.holds[owner] = map[string]bool{}
		}
		w.holds[owner][id] = true
	})
	return nil
}

func (w *world) Release(owner string) { w.change(func() { delete(w.holds, owner) }) }

// filesLeft lists what a Pods left on its disk.
func filesLeft(root string) []string {
	var list []string
	for _, dir := range []string{"pods", "containers", "bad-records"} {
		entries, _ := os.ReadDir(filepath.Join(root, dir))
		for _, e := range entries {
			list = append(list, dir+"/"+e.Name())
		}
	}
	return list
}
