package kubelet

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"cri-mini/internal/enclosure"
	"cri-mini/internal/testregistry"
	"cri-mini/internal/testtool"
)

// patience is how long the kubelet may take for anything. It looks at its pods
// once in a second or two, waits between attempts, and builds share the machine.
const patience = 90 * time.Second

//go:embed pods kubelet.yaml
var files embed.FS

// node is one daemon and one kubelet.
type node struct {
	t        *testing.T
	dir      string
	Gates    map[string]bool // feature gates of the kubelet
	Flags    []string        // more of the kubelet's
	registry *testregistry.Registry

	// What the kubelet keeps free, by throwing things away: of the disk of images,
	// of its own, of memory. And what it does not give to pods at all.
	Reserve, DiskReserve, MemoryReserve, Kept string
	// Percent of the disk, above which it removes images, and down to which.
	ImagesHigh, ImagesLow int

	server          *apiServer // nil for a node of static pods
	daemon, kubelet *process
	daemonAway      bool // for a while, and the kubelet may say so
}

func (n *node) Endpoint() string  { return "unix://" + n.dir + "/run/cri.sock" }
func (n *node) Manifests() string { return filepath.Join(n.dir, "manifests") }
func (n *node) PodLogs() string   { return filepath.Join(n.dir, "pods") }
func (n *node) Group() bool       { return hasControllers() }
func (n *node) Volume() string    { return filepath.Join(n.dir, "volume") }
func (n *node) Plugins() string   { return filepath.Join(n.dir, "plugins") }

// Files is as many as this process may open: the kubelet asks for its limit by
// raising it, which needs a right that the tests may not have.
func (n *node) Files() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		n.t.Fatal(err)
	}
	return limit.Max
}

// start starts both. When the test ends its pods are taken away by the kubelet,
// and both must end without having complained.
func start(t *testing.T, gates ...string) *node {
	t.Helper()
	return startWith(t, func(n *node) {
		for _, gate := range gates {
			n.Gates[gate] = true
		}
	})
}

func startWith(t *testing.T, change func(*node)) *node {
	t.Helper()
	n := &node{t: t, Gates: map[string]bool{}, Reserve: "1Mi", DiskReserve: "1Mi", MemoryReserve: "1Mi", ImagesHigh: 85, ImagesLow: 80}
	change(n)
	if n.dir == "" {
		n.makeDir()
	}
	keepSysctls(t, n.dir)
	for _, dir := range []string{"run", "manifests", "pods", "certs.d", "kubelet", "volume"} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.pushImages()
	n.startDaemon()
	n.write("kubelet.yaml", filepath.Join(n.dir, "kubelet.yaml"))
	n.startKubelet()
	t.Cleanup(n.end)
	return n
}

// makeDir makes the folder of everything. Its name is short, for the kubelet
// makes sockets in it. It is taken away last, when nothing is mounted there any
// more.
func (n *node) makeDir() {
	n.t.Helper()
	var err error
	if n.dir, err = os.MkdirTemp("", "n"); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := os.RemoveAll(n.dir); err != nil {
			n.t.Error(err)
		}
	})
}

func (n *node) startDaemon() {
	n.t.Helper()
	n.daemon = n.begin("daemon", enclosure.Program("cri-mini"), "serve", "--config", "/dev/null",
		"--root", n.dir+"/root", "--state", n.dir+"/run/state", "--listen", n.Endpoint(),
		"--registry-config-dir", n.dir+"/certs.d", "--cni-conf-dir", n.dir+"/net.d", "--cgroup-driver", cgroupDriver())
	// As a kubelet's service waits for that of its runtime.
	n.eventually("the daemon answers", func() error {
		_, err := n.cli("ps")
		return err
	})
}

func (n *node) startKubelet() {
	n.t.Helper()
	var endings [][2]int64
	if n.kubelet != nil {
		endings = n.kubelet.endings
	}
	n.kubelet = n.begin("kubelet", kubeletBinary(), append(n.Flags, "--config", n.dir+"/kubelet.yaml", "--root-dir", n.dir+"/kubelet",
		"--cert-dir", n.dir+"/kubelet/pki", "--hostname-override", "node", "--v", "2")...)
	n.kubelet.endings = endings
	n.eventually("the kubelet answers", func() error {
		_, err := n.get("/healthz")
		return err
	})
}

// pushImages serves what the pods name.
func (n *node) pushImages() {
	n.t.Helper()
	n.registry = testregistry.New(testregistry.Options{})
	n.t.Cleanup(n.registry.Close)
	layer := n.busybox()
	n.registry.Push("busybox", "1", testregistry.Image{Layers: []testregistry.Layer{layer}, Config: ocispec.ImageConfig{Cmd: []string{"sleep", "100000"}}})
	n.registry.Push("once", "1", testregistry.Image{Layers: []testregistry.Layer{layer, testregistry.Files(map[string]string{"own": "content\n"})}})
	n.registry.Push("data", "1", testregistry.Image{Layers: []testregistry.Layer{
		testregistry.Files(map[string]string{"model/weights": "42\n", "readme": "data\n"})}})
	if err := n.registry.Mirror(n.dir+"/certs.d", "registry.test"); err != nil {
		n.t.Fatal(err)
	}
}

// busybox is a layer with what the containers run.
func (n *node) busybox() testregistry.Layer {
	n.t.Helper()
	layer, err := testregistry.Busybox()
	if missing := (*testtool.Missing)(nil); errors.As(err, &missing) {
		n.t.Skip(missing)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	health, err := os.ReadFile(enclosure.Program("health"))
	if err != nil {
		n.t.Fatal(err)
	}
	layer.Files = append(layer.Files, testregistry.Program("bin/health", health))
	return layer
}

// fill fills a file of this package in.
func (n *node) fill(name string, values any) []byte {
	n.t.Helper()
	text, err := files.ReadFile(name)
	if err != nil {
		n.t.Fatal(err)
	}
	filled := template.Must(template.New(name).Option("missingkey=error").Parse(string(text)))
	var out bytes.Buffer
	if err := filled.Execute(&out, values); err != nil {
		n.t.Fatal(err)
	}
	return out.Bytes()
}

// write puts a file of this package where it belongs by a rename, so that no
// half of it is ever read.
func (n *node) write(name, path string) {
	n.t.Helper()
	n.writeWith(name, path, n)
}

func (n *node) writeWith(name, path string, values any) {
	n.t.Helper()
	half := filepath.Join(n.dir, filepath.Base(path)+".new") // where the kubelet does not look
	if err := os.WriteFile(half, n.fill(name, values), 0o644); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(half, path); err != nil {
		n.t.Fatal(err)
	}
}

// add gives the kubelet the pod of pods/NAME.yaml.
func (n *node) add(name string) {
	n.t.Helper()
	n.write("pods/"+name+".yaml", filepath.Join(n.Manifests(), name+".yaml"))
}

// remove takes a pod away and waits until nothing of it runs: the kubelet
// forgets it earlier.
func (n *node) remove(name string) {
	n.t.Helper()
	if err := os.Remove(filepath.Join(n.Manifests(), name+".yaml")); err != nil {
		n.t.Fatal(err)
	}
	n.eventually(name+" has ended", func() error { return n.ended(name + "-node") })
}

// ended is an error while a container of a pod runs; of any pod without a name.
func (n *node) ended(pod string) error {
	out, err := n.cli("ps")
	for line := range strings.Lines(out) {
		if strings.Contains(line, pod) && strings.Contains(line, "running") {
			return errors.New(line)
		}
	}
	return err
}

// eventually waits for something to become true.
func (n *node) eventually(what string, check func() error) {
	n.t.Helper()
	n.within(patience, what, check)
}

func (n *node) within(limit time.Duration, what string, check func() error) {
	n.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		for _, p := range []*process{n.daemon, n.kubelet} {
			if p != nil && p.hasEnded() {
				n.t.Fatalf("%s: the %s has ended: %v\n%s", what, p.name, p.err, p.tail(30))
			}
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
	}
}

// end takes everything away as an administrator would: pods first.
func (n *node) end() {
	left, _ := filepath.Glob(n.Manifests() + "/*.yaml")
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			n.t.Error(err)
		}
	}
	if n.server != nil {
		n.server.removePods()
	}
	n.eventually("no container runs", func() error { return n.ended("") })
	n.eventually("the kubelet has unmounted what pods had", func() error {
		if left := n.strayMounts("self"); len(left) > 0 {
			return fmt.Errorf("mounted: %v", left)
		}
		return nil
	})
	n.kubelet.stop()
	if out, err := n.cli("stop", "--pods"); err != nil {
		n.t.Errorf("stop: %v\n%s", err, out)
	}
	<-n.daemon.ended
	n.judgeLogs()
	n.unmountVolumes()
	if n.t.Failed() {
		n.t.Logf("daemon:\n%s", n.daemon.tail(40))
		n.t.Logf("kubelet:\n%s", n.kubelet.tail(150))
	}
}

// sysctls are what a kubelet sets for its node.
var sysctls = []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}

// keepSysctls lets the kubelet write copies: the machine is not ours.
func keepSysctls(t *testing.T, dir string) {
	t.Helper()
	for i, name := range sysctls {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("%s/sysctl%d", dir, i)
		if err := os.WriteFile(path, value, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(path, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			t.Fatalf("cover %s: %v", name, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount("/proc/sys/"+name, 0); err != nil {
				t.Errorf("uncover %s: %v", name, err)
			}
		})
	}
}

// strayMount tells whether somebody left this in the folder of the node. Its own
// folder the kubelet mounts on itself, and that of the state may be a tmpfs.
func (n *node) strayMount(path string) bool {
	return strings.HasPrefix(path, n.dir+"/") && path != n.dir+"/kubelet" && path != n.dir+"/run"
}

// strayMounts are those that a process has.
func (n *node) strayMounts(process string) (found []string) {
	for _, path := range n.mounts(process) {
		if n.strayMount(path) {
			found = append(found, path)
		}
	}
	return found
}

// mounts are those that a process has in the folder of the node.
func (n *node) mounts(process string) (found []string) {
	table, err := os.ReadFile("/proc/" + process + "/mountinfo")
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], n.dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found
}

// unmountVolumes takes away what a kubelet that stopped early has left.
func (n *node) unmountVolumes() {
	for _, path := range n.mounts("self") {
		if n.strayMount(path) {
			n.t.Errorf("left mounted: %s", path)
		}
		_ = unix.Unmount(path, unix.MNT_DETACH)
	}
}

func (n *node) cli(args ...string) (string, error) {
	out, err := exec.Command(enclosure.Program("cri-mini"), append([]string{"--config", "/dev/null", "--listen", n.Endpoint()}, args...)...).CombinedOutput()
	return string(out), err
}

// process is a program that runs until it is stopped, with its output in a file.
type process struct {
	t     *testing.T
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // after ended

	endings [][2]int64 // parts of the log, of this process and those before it
}

func (n *node) begin(name, binary string, args ...string) *process {
	n.t.Helper()
	p := &process{t: n.t, name: name, log: filepath.Join(n.dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		n.t.Fatalf("start the %s: %v", name, err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.ended) }()
	return p
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("%s to the %s: %v", s, p.name, err)
	}
}

// stop asks the process to end, and makes it when it does not.
func (p *process) stop() {
	p.t.Helper()
	told := p.size()
	defer func() { p.endings = append(p.endings, [2]int64{told, p.size()}) }()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Errorf("the %s did not end in %s\n%s", p.name, patience, p.tail(20))
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *process) tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.SplitAfter(string(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// hasControllers tells whether limits can be set for pods here.
func hasControllers() bool {
	text, err := os.ReadFile(enclosure.CgroupRoot + "/cgroup.controllers")
	return err == nil && strings.Contains(string(text), "memory") && strings.Contains(string(text), "cpu ")
}
