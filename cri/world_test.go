package cri

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/cri/stream"
	"cri-mini/image"
	"cri-mini/internal/audit"
	"cri-mini/internal/leakcheck"
	"cri-mini/internal/socket"
	"cri-mini/podsandbox"
	"cri-mini/podsandbox/network"
	"cri-mini/runtime/spec"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// world is a server on real pods and images, whose kernel is made up: every
// program runs until it gets a signal, and obeys it.
type world struct {
	criapi.RuntimeServiceClient
	criapi.ImageServiceClient
	server *Server
	kernel *kernel
	stop   func() // of the server; may be called twice
}

// kernel is the made-up part: executor and network.
type kernel struct {
	mu    sync.Mutex
	tasks map[string]*podsandbox.Task
	exits chan podsandbox.TaskExit
	cidr  string
	down  error // of the network
}

func newWorld(t *testing.T) *world {
	t.Helper()
	k := &kernel{tasks: map[string]*podsandbox.Task{}, exits: make(chan podsandbox.TaskExit, 100)}
	w := &world{kernel: k}
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	images, err := image.Open(filepath.Join(dir, "images"), image.Options{RegistryConfigDir: filepath.Join(dir, "certs.d"), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(rootfs, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := images.ImportRootfs(t.Context(), rootfs, "example.com/app:1", image.Config{Cmd: []string{"/app"}, User: "7:8"}); err != nil {
		t.Fatal(err)
	}
	pods, err := podsandbox.Open(t.Context(), podsandbox.Options{Root: filepath.Join(dir, "root"), Executor: k, Images: images, Network: k, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	streams, err := stream.Listen(stream.Config{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	w.server = &Server{
		Node: Node{Version: "1.2.3", Root: dir, State: dir, CgroupDriver: criapi.CgroupDriver_CGROUPFS,
			Handlers: []*criapi.RuntimeHandler{{}}, Features: &criapi.RuntimeFeatures{}, Probed: map[string]string{"seccomp": "yes"}},
		Pods: pods, Images: images, Network: k, Streams: streams,
	}
	path := filepath.Join(dir, "cri.sock")
	listener, err := socket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	serve, stop := w.server.Serve(listener, log)
	w.stop = stop
	served := make(chan error, 1)
	go func() { served <- serve() }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	w.RuntimeServiceClient, w.ImageServiceClient = criapi.NewRuntimeServiceClient(conn), criapi.NewImageServiceClient(conn)
	t.Cleanup(func() {
		conn.Close()
		stop()
		err := errors.Join(<-served, streams.Close(), pods.Close(context.Background()), images.Close())
		if err != nil {
			t.Error(err)
		}
	})
	return w
}

// pod and container make what most tests need.
func (w *world) pod(t *testing.T, name string, change func(*criapi.PodSandboxConfig)) string {
	t.Helper()
	config := &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name},
		Hostname: name,
		Labels:   map[string]string{"app": name},
	}
	if change != nil {
		change(config)
	}
	answer, err := w.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return answer.PodSandboxId
}

func (w *world) container(t *testing.T, pod, name string, start bool) string {
	t.Helper()
	answer, err := w.CreateContainer(t.Context(), &criapi.CreateContainerRequest{PodSandboxId: pod, Config: &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name},
		Image:    &criapi.ImageSpec{Image: "example.com/app:1"},
		Labels:   map[string]string{"part": name},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if start {
		if _, err := w.StartContainer(t.Context(), &criapi.StartContainerRequest{ContainerId: answer.ContainerId}); err != nil {
			t.Fatal(err)
		}
	}
	return answer.ContainerId
}

// What follows is the made-up kernel.

type emptyRoot struct{}

func (emptyRoot) ReadFile(string, int64) ([]byte, error) { return nil, os.ErrNotExist }
func (emptyRoot) Close() error                           { return nil }

func (k *kernel) CreateSandbox(_ context.Context, s spec.Sandbox) (started podsandbox.Started, err error) {
	if s.SharedPID {
		started = podsandbox.Started{PID: 999, At: time.Now()}
	}
	return started, nil
}
func (k *kernel) SandboxNetNS(context.Context, string) (*os.File, string, error) {
	f, err := os.Open("/proc/self/ns/net")
	return f, "/proc/self/ns/net", err
}
func (k *kernel) RemoveSandbox(context.Context, string) error                  { return nil }
func (k *kernel) Prepare(context.Context, spec.Container) error                { return nil }
func (k *kernel) ReopenLog(context.Context, string, string) error              { return nil }
func (k *kernel) Exits() <-chan podsandbox.TaskExit                            { return k.exits }
func (k *kernel) Update(context.Context, spec.Container, spec.Resources) error { return nil }
func (k *kernel) Tasks(context.Context) (map[string]podsandbox.Task, error) {
	return nil, nil
}

func (k *kernel) MountRootfs(context.Context, string, spec.Rootfs) (podsandbox.Rootfs, error) {
	return emptyRoot{}, nil
}

func (k *kernel) Start(_ context.Context, id string) (podsandbox.Started, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	started := podsandbox.Started{PID: 1000 + len(k.tasks), At: time.Now()}
	k.tasks[id] = &podsandbox.Task{Started: started}
	return started, nil
}

func (k *kernel) StartAttached(ctx context.Context, id string) (podsandbox.Started, podsandbox.Attachment, error) {
	started, err := k.Start(ctx, id)
	return started, nil, err
}

func (k *kernel) Signal(id string, signal int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if task := k.tasks[id]; task != nil && task.Exit == nil {
		task.Exit = &spec.Exit{Code: 128 + signal, At: time.Now()}
		k.exits <- podsandbox.TaskExit{ID: id, Exit: *task.Exit}
	}
	return nil
}

func (k *kernel) Kill(id string) error { return k.Signal(id, 9) }

func (k *kernel) Remove(_ context.Context, c spec.Container) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tasks, c.ID)
	return nil
}

var errNoKernel = errors.New("no kernel")

func (k *kernel) Exec(context.Context, string, spec.Process, podsandbox.ExecIO) (podsandbox.Execution, error) {
	return nil, errNoKernel
}

func (k *kernel) Attach(context.Context, string) (podsandbox.Attachment, error) {
	return nil, errNoKernel
}

func (k *kernel) Stats(string, int64) (spec.Stats, error) {
	return spec.Stats{
		At: time.Now(), CPU: spec.CPU{Nanos: 5e9}, Processes: 3,
		Memory:      &spec.Memory{Usage: 100, Limit: 1000, WorkingSet: 90, RSS: 70, PageFaults: 6, MajorPageFaults: 2},
		Swap:        &spec.Swap{Usage: 30, Limit: 50, Limited: true},
		CPUPressure: &spec.Pressure{Some: spec.PressureTime{Avg10: 1.5, Avg60: 2.5, Avg300: 3.5, Nanos: 4000}, Full: spec.PressureTime{Nanos: 1000}},
		IOPressure:  &spec.Pressure{Full: spec.PressureTime{Avg60: 7}},
	}, nil
}

func (k *kernel) CPUTime(string) (uint64, error) { return 5e9, nil }

func (k *kernel) Inside(string) (spec.Inside, error) { return spec.Inside{Threads: 4}, nil }

func (k *kernel) Things(context.Context, string) ([]audit.Thing, error) { return nil, nil }

func (k *kernel) Interfaces(context.Context, string) ([]spec.Interface, error) {
	return []spec.Interface{{Name: "net1", RxBytes: 11}, {Name: "eth0", RxBytes: 1, RxErrors: 2, TxBytes: 3, TxErrors: 4}}, nil
}

func (k *kernel) Writable(context.Context, spec.Rootfs) (spec.DiskUsage, error) {
	return spec.DiskUsage{At: time.Now(), Bytes: 4096, Inodes: 2}, nil
}

func (k *kernel) FileSystem(string) (spec.FileSystem, error) {
	return spec.FileSystem{Device: "/dev/fake", Bytes: 1 << 30, Inodes: 1000, FreeInodes: 900}, nil
}

// The made-up network.

func (k *kernel) Setup(context.Context, network.Pod) (network.Result, error) {
	return network.Result{IPs: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")}}, nil
}
func (k *kernel) Teardown(context.Context, network.Pod) error { return nil }
func (k *kernel) Result(string) (network.Result, bool)        { return network.Result{}, false }
func (k *kernel) Collect([]string) error                      { return nil }
func (k *kernel) Connections() ([]audit.Thing, error)         { return nil, nil }
func (k *kernel) LostConnections() ([]audit.Finding, error)   { return nil, nil }
func (k *kernel) Status() error                               { return k.down }
func (k *kernel) SetPodCIDR(cidr string) error                { k.cidr = cidr; return nil }
func (k *kernel) Describe() map[string]any                    { return map[string]any{"form": "made up"} }
