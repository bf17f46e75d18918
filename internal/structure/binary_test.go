package structure

import (
	"bufio"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
	"cri-mini/runtime/boot"
	"cri-mini/runtime/wire"
)

// program is the file that make build makes.
var program string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "structure-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "cri-mini")
	command := exec.Command("make", "-s", "-C", root, "build", "program="+program)
	if text, err := command.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "make build: %v\n%s", err, text)
		return 1
	}
	return leakcheck.Run(m)
}

// maxProgram is more than the file has; see docs/promises.md.
const maxProgram = 32 << 20

func TestProgramIsOneStaticFile(t *testing.T) {
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", info.Size())
	if info.Size() > maxProgram {
		t.Errorf("%d bytes, want at most %d", info.Size(), maxProgram)
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("has a program header %s: needs a loader or libraries of the system", p.Type)
		}
	}
}

// heavy are packages whose init is what the monitor must not pay for. Go
// initialises packages in the order of their import paths as soon as what they
// import is ready, so small ones of other modules do come before package boot.
var heavy = []string{
	"net", "net/http", "crypto/tls", "crypto/x509", "html/template", "text/template",
	"cri-mini/cri", "cri-mini/image", "cri-mini/podsandbox", "cri-mini/runtime/cgroup", "cri-mini/runtime/cgroup/systemd", "cri-mini/runtime/executor",
	"github.com/alecthomas/kong", "github.com/cilium/ebpf", "github.com/containerd/cgroups/v3/cgroup2",
	"github.com/containernetworking/cni/libcni", "github.com/godbus/dbus/v5", "github.com/google/nftables",
	"google.golang.org/grpc", "google.golang.org/protobuf/internal/impl",
	"k8s.io/cri-api/pkg/apis/runtime/v1", "github.com/gorilla/websocket", "github.com/moby/spdystream",
	"oras.land/oras-go/v2/registry",
}

// What a process of ours that stays may cost; see docs/promises.md.
const (
	maxInitBytes   = 192 << 10 // allocated by package initialisation
	maxPrivateKiB  = 1536      // memory of its own, not counting the file's pages
	monitorSetting = "GOGC=50" // as the executor starts it
)

func TestMonitorStartsLight(t *testing.T) {
	stdin, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	command := exec.Command(program)
	command.Env = []string{boot.Variable + "=" + boot.Hold, "GODEBUG=inittrace=1"}
	command.Stdin = stdin
	trace, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	settle()
	private := privateKiB(t, command.Process.Pid)
	write.Close() // it ends
	loaded, bytes := initialised(t, trace)
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d packages, %d bytes allocated, %d KiB private", len(loaded), bytes, private)
	if !loaded["cri-mini/runtime/spawn"] {
		t.Fatalf("no trace of what is initialised: %v", loaded)
	}
	for _, name := range heavy {
		if loaded[name] {
			t.Errorf("%s is initialised before the monitor begins", name)
		}
	}
	if bytes > maxInitBytes {
		t.Errorf("initialisation allocates %d bytes, want at most %d", bytes, maxInitBytes)
	}
	if private > maxPrivateKiB {
		t.Errorf("%d KiB of private memory, want at most %d", private, maxPrivateKiB)
	}
}

// initialised reads lines like "init os @10 ms, 0.02 ms clock, 416 bytes, 9 allocs".
func initialised(t *testing.T, trace io.Reader) (loaded map[string]bool, bytes int) {
	t.Helper()
	loaded = map[string]bool{}
	lines := bufio.NewScanner(trace)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 8 || words[0] != "init" {
			t.Errorf("unexpected line %q", lines.Text())
			continue
		}
		loaded[words[1]] = true
		for i, word := range words {
			if word == "bytes," {
				n, err := strconv.Atoi(words[i-1])
				if err != nil {
					t.Errorf("line %q: %v", lines.Text(), err)
				}
				bytes += n
			}
		}
	}
	return loaded, bytes
}

func TestIdleMonitorIsSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "monitor.sock")
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(listener), path)
	defer socket.Close()
	if err := unix.Bind(listener, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program)
	command.Env = []string{boot.Variable + "=" + boot.Monitor, monitorSetting}
	command.ExtraFiles = []*os.File{socket}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer command.Wait()
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	if err := unix.Connect(conn, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if answer := ask(t, conn, wire.Hello); int(answer.PID) != command.Process.Pid {
		t.Fatalf("Hello is answered by %d, want %d", answer.PID, command.Process.Pid)
	}
	settle()
	private := privateKiB(t, command.Process.Pid)
	t.Logf("%d KiB private", private)
	if private > maxPrivateKiB {
		t.Errorf("%d KiB of private memory, want at most %d", private, maxPrivateKiB)
	}
	ask(t, conn, wire.Quit)
}

func ask(t *testing.T, conn int, verb wire.Verb) *wire.Answer {
	t.Helper()
	if err := wire.Send(conn, (&wire.Request{Verb: verb}).Encode(), nil); err != nil {
		t.Fatal(err)
	}
	body, files, err := wire.Receive(conn)
	if err != nil {
		t.Fatal(err)
	}
	wire.CloseAll(files)
	answer, err := wire.DecodeAnswer(body)
	if err != nil || answer.Failed != -1 {
		t.Fatalf("request %d is answered %+v, %v", verb, answer, err)
	}
	return answer
}

// settle lets a process come to rest.
func settle() { time.Sleep(300 * time.Millisecond) }

// privateKiB is the memory that a process has for itself. The pages of its file
// it shares with the daemon, and the kernel can read them again.
func privateKiB(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "Anonymous:" {
			n, err := strconv.Atoi(words[1])
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			return n
		}
	}
	t.Fatalf("no Anonymous in %s", text)
	return 0
}
