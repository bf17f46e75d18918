package node

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
)

// patience is how long anything may take that takes milliseconds on a machine
// with nothing else to do.
const patience = time.Minute

// daemon is one instance with folders of its own.
type daemon struct {
	t     *testing.T
	dir   string   // of what survives a reboot, and of logs
	state string   // on tmpfs, as /run is
	flags []string // besides the folders
	waves int      // of pods that were started together
	other string   // program of another build, which is to be served; none: the usual one

	// manager starts the daemon, as systemd would; nil: we do.
	manager *serviceManager

	process *exec.Cmd
	ended   chan error // what Wait returned
	conn    *grpc.ClientConn
	criapi.RuntimeServiceClient
	images criapi.ImageServiceClient
}

func (d *daemon) root() string      { return filepath.Join(d.dir, "root") }
func (d *daemon) certs() string     { return filepath.Join(d.dir, "certs.d") }
func (d *daemon) conflists() string { return filepath.Join(d.dir, "net.d") }
func (d *daemon) endpoint() string  { return "unix://" + filepath.Join(d.state, "socket/cri.sock") }
func (d *daemon) log() string       { return filepath.Join(d.dir, "daemon.log") }
func (d *daemon) logs() string      { return filepath.Join(d.dir, "logs") }

// start starts a new instance. When the test ends it is stopped with all its
// pods, and nothing of it may be left.
func start(t *testing.T, flags ...string) *daemon {
	t.Helper()
	return startOn(t, func(*daemon) {}, flags...)
}

// startOn starts an instance on what is put into its folders before.
func startOn(t *testing.T, put func(*daemon), flags ...string) *daemon {
	t.Helper()
	before := count(t)
	d := &daemon{t: t, dir: t.TempDir(), flags: flags}
	var err error
	if d.state, err = os.MkdirTemp("/run", "node-"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{d.certs(), d.conflists(), d.logs()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := registry(t).Mirror(d.certs(), "registry.test"); err != nil {
		t.Fatal(err)
	}
	// One connection for all lives of the daemon, as the kubelet has it.
	if d.conn, err = grpc.NewClient(d.endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: patience, // without it an attempt may take no longer than the delay
		})); err != nil {
		t.Fatal(err)
	}
	d.RuntimeServiceClient = criapi.NewRuntimeServiceClient(d.conn)
	d.images = criapi.NewImageServiceClient(d.conn)
	put(d)
	d.serve()
	t.Cleanup(func() {
		d.stopAll()
		if t.Failed() {
			d.showLog()
		}
		before.compare(t, "after the end of the instance", func() census { return count(t) })
		if err := os.RemoveAll(d.state); err != nil {
			t.Error(err)
		}
	})
	return d
}

// cgroupDriver is cgroupfs, or auto on a machine that is all for these tests and
// where that means systemd.
func cgroupDriver() string { return cmp.Or(os.Getenv("NODE_CGROUP_DRIVER"), "cgroupfs") }

func (d *daemon) program() string { return cmp.Or(d.other, enclosure.Program("cri-mini")) }

func (d *daemon) command() *exec.Cmd {
	return exec.Command(d.program(), append([]string{
		"serve", "--root", d.root(), "--state", filepath.Join(d.state, "state"), "--listen", d.endpoint(),
		"--registry-config-dir", d.certs(), "--cni-conf-dir", d.conflists(), "--cni-bin-dir", filepath.Join(d.dir, "cni-bin"),
		"--config", "/dev/null", "--cgroup-driver", cgroupDriver(), "--log-level", "debug",
	}, d.flags...)...)
}

// serve starts the process and returns when it answers.
func (d *daemon) serve() {
	d.t.Helper()
	d.launch()
	if err := d.answers(); err != nil {
		d.showLog()
		d.t.Fatal(err)
	}
}

// launch starts the process.
func (d *daemon) launch() {
	d.t.Helper()
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.process = d.command()
	d.process.Stdout, d.process.Stderr = log, log
	begin := d.process.Start
	if d.manager != nil {
		begin = func() error { return d.manager.start(d.process) }
	}
	if err := begin(); err != nil {
		d.t.Fatal(err)
	}
	d.ended = make(chan error, 1)
	go func(process *exec.Cmd, ended chan error) { ended <- process.Wait() }(d.process, d.ended)
}

// answers returns when a process that was launched does, or has ended.
func (d *daemon) answers() error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-d.ended:
			d.ended <- err
			return fmt.Errorf("the daemon ended: %w", err)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := d.Version(ctx, &criapi.VersionRequest{})
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			d.process.Process.Signal(syscall.SIGQUIT) // has it say what it is doing
			d.ended <- <-d.ended
			return fmt.Errorf("the daemon does not answer within %s: %w\n%s", patience, err, readFile(d.t, d.log()))
		}
	}
}

// kill ends the daemon as the kernel would for lack of memory.
func (d *daemon) kill() {
	d.t.Helper()
	if err := d.process.Process.Kill(); err != nil {
		d.t.Fatalf("kill the daemon: %v", err)
	}
	<-d.ended
}

// restart is what nobody may notice.
func (d *daemon) restart() {
	d.t.Helper()
	d.kill()
	d.serve()
}

// enter lets a subtest take over.
func (d *daemon) enter(t *testing.T) {
	outer := d.t
	d.t = t
	t.Cleanup(func() { d.t = outer })
}

func (d *daemon) pid() int { return d.process.Process.Pid }

// monitor finds the process by its command line; 0 when there is none. Until
// its execve a child of the monitor has the same one.
func (d *daemon) monitor() int {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	parents := map[int]int{}
	for _, name := range found {
		line, _ := os.ReadFile(name)
		if args := strings.Split(string(line), "\x00"); args[0] == "cri-mini: monitor" && args[1] == filepath.Join(d.state, "state") {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			parents[pid] = parentOf(pid)
		}
	}
	for pid, parent := range parents {
		if _, child := parents[parent]; !child && parent != 0 {
			return pid
		}
	}
	return 0
}

// parentOf gives 0 for a process that has gone.
func parentOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	var state string
	var parent int
	fmt.Sscan(rest, &state, &parent)
	return parent
}

// killMonitor returns when the next one holds all that is held twice. Until
// then a death of the daemon would be one of both.
func (d *daemon) killMonitor() {
	d.t.Helper()
	old, next := d.monitor(), d.nextMonitor()
	if old == 0 {
		d.t.Fatal("no monitor runs")
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		d.t.Fatalf("kill monitor %d: %v", old, err)
	}
	eventually(d.t, "a new monitor", next)
}

// nextMonitor gives what tells whether another one has taken over since.
func (d *daemon) nextMonitor() (takenOver func() bool) {
	d.t.Helper()
	info, err := os.Stat(d.log())
	if err != nil {
		d.t.Fatal(err)
	}
	before := info.Size()
	return func() bool {
		log, err := os.Open(d.log())
		if err != nil {
			d.t.Fatal(err)
		}
		defer log.Close()
		said, err := io.ReadAll(io.NewSectionReader(log, before, 1<<40))
		return err == nil && strings.Contains(string(said), "the new monitor has taken over")
	}
}

// stopAll ends the instance with its pods and its monitor.
func (d *daemon) stopAll() {
	d.t.Helper()
	select {
	case err := <-d.ended:
		d.ended <- err
		return // by a test
	default:
	}
	if out, err := d.run("stop", "--pods"); err != nil {
		d.t.Errorf("stop --pods: %v\n%s", err, out)
		d.process.Process.Kill()
	}
	d.conn.Close()
	select {
	case err := <-d.ended:
		d.ended <- err
		if err != nil {
			d.t.Errorf("end of the daemon: %v", err)
		}
	case <-time.After(patience):
		d.t.Errorf("the daemon still runs %s after stop --pods", patience)
		d.process.Process.Kill()
	}
}

// run is the command line.
func (d *daemon) run(args ...string) (string, error) {
	out, err := exec.Command(enclosure.Program("cri-mini"), append([]string{"--config", "/dev/null", "--listen", d.endpoint()}, args...)...).CombinedOutput()
	return string(out), err
}

var keepLogs = flag.String("logs", "", "`folder` in which the whole log of a daemon is kept whose test fails")

func (d *daemon) showLog() {
	text, err := os.ReadFile(d.log())
	if err != nil {
		d.t.Error(err)
	}
	if more, err := os.ReadFile(filepath.Join(d.state, "state/monitor.log")); err == nil {
		text = append(text, more...)
	}
	if *keepLogs != "" {
		name := filepath.Join(*keepLogs, strings.ReplaceAll(d.t.Name(), "/", "-")+time.Now().Format("-150405.log"))
		if err := os.WriteFile(name, text, 0o600); err != nil {
			d.t.Error(err)
		}
	}
	var told []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "level=DEBUG") {
			told = append(told, strings.TrimSpace(line))
		}
	}
	d.t.Logf("the last words of daemon and monitor:\n%s", strings.Join(told[max(0, len(told)-30):], "\n"))
}

// context is that of one call.
func (d *daemon) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	d.t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if true() {
			return
		}
	}
	t.Fatalf("not within %s: %s", patience, what)
}

// alive tells whether a process is there and no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}
