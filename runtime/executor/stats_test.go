package executor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/testtool"
	"cri-mini/runtime/spec"
)

// ip runs the tool of that name in the sandbox's network.
func (n *node) ip(args ...string) {
	n.t.Helper()
	tool := testtool.Need(n.t, "ip", "iproute2")
	net, _, err := n.SandboxNetNS(n.t.Context(), "pod")
	if err != nil {
		n.t.Fatal(err)
	}
	defer net.Close()
	err = inNamespaces(files{"net": net}, func() error {
		out, err := exec.Command(tool, args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("ip %q: %w\n%s", args, err, out)
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestInterfacesAreThoseOfTheSandbox(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	list, err := n.Interfaces(t.Context(), "pod")
	if err != nil || list == nil || len(list) != 0 {
		t.Errorf("of a fresh sandbox: %+v, %v; want none, but known", list, err)
	}
	n.ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
	n.ip("addr", "add", "192.0.2.1/24", "dev", "eth0")
	n.ip("link", "set", "eth0", "up")
	n.ip("link", "set", "other", "up")
	s := n.container("a", nil, "sh", "-c", "busybox ping -c 3 -W 1 192.0.2.2; cat /proc/net/dev")
	out, _ := n.output(s)
	if list, err = n.Interfaces(t.Context(), "pod"); err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v; want eth0 and other", list, err)
	}
	seen := map[string]spec.Interface{}
	for _, i := range parseInterfaces(out) {
		seen[i.Name] = i
	}
	for _, i := range list {
		// A question for a neighbour may still be repeated.
		was, known := seen[i.Name]
		if sent := i.TxBytes + i.RxBytes; !known || sent == 0 || sent < was.TxBytes+was.RxBytes || i.Name == "eth0" && i.TxPackets == 0 {
			t.Errorf("%+v, inside it is %+v", i, was)
		}
	}
}

func TestNetworkOfTheNodeIsNotAPods(t *testing.T) {
	n := newNode(t, spec.Sandbox{HostNetwork: true, HostUTS: true})
	if list, err := n.Interfaces(t.Context(), "pod"); list != nil || err != nil {
		t.Errorf("%+v, %v; want nothing", list, err)
	}
	if _, err := n.Interfaces(t.Context(), "none"); !errors.Is(err, ErrUnknown) {
		t.Errorf("of an unknown sandbox: %v", err)
	}
}

// A pod names its interfaces as it likes, and makes as many.
func TestHostileInterfacesStayTextAndFew(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	n.ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
	var batch strings.Builder
	for i := range maxInterfaces {
		fmt.Fprintf(&batch, "link add d%d type veth peer name p%d\n", i, i)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.ip("link", "add", "\xff\xfe", "type", "veth", "peer", "name", "\xfe")
	n.ip("-batch", file)
	list, err := n.Interfaces(t.Context(), "pod")
	if err != nil || len(list) != maxInterfaces || !slices.ContainsFunc(list, func(i spec.Interface) bool { return i.Name == `\xff\xfe` }) {
		t.Fatalf("%d interfaces, %v: %+v", len(list), err, list)
	}
}

const table = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
  eth0: 18446744073709551615 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
`

func TestParseInterfaces(t *testing.T) {
	eth0 := spec.Interface{Name: "eth0", RxBytes: 1<<64 - 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 9, TxPackets: 10, TxErrors: 11, TxDropped: 12}
	for text, want := range map[string][]spec.Interface{
		"":                    {},
		table:                 {eth0},
		table + "net1: 1 2":   {eth0}, // cut off
		table + "net1: 1 2\n": {eth0},
		"a: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 x\n":                     {},
		"a\\: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n":                  {{Name: `a\x5c`, RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 9, TxPackets: 10, TxErrors: 11, TxDropped: 12}},
		"ü: 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n":                           {{Name: "ü", RxBytes: 1}},
		strings.Repeat("x: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", 65) + "x": repeated(64, spec.Interface{Name: "x"}),
	} {
		if got := parseInterfaces(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func repeated(n int, i spec.Interface) []spec.Interface {
	list := make([]spec.Interface, n)
	for j := range list {
		list[j] = i
	}
	return list
}

func FuzzInterfaces(f *testing.F) {
	for _, seed := range []string{"", ":", table, "\xff: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", `\xff: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0` + "\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list := parseInterfaces(text)
		if len(list) > maxInterfaces {
			t.Errorf("%d interfaces", len(list))
		}
		names := map[string]bool{}
		for _, i := range list {
			if strings.ToValidUTF8(i.Name, "") != i.Name {
				t.Errorf("name %q", i.Name)
			}
			names[i.Name] = true
		}
		// Two names become two names.
		a, b, _ := strings.Cut(text, "\n")
		if a != b && printable(a) == printable(b) {
			t.Errorf("%q and %q both become %q", a, b, printable(a))
		}
	})
}

func TestInsideCountsDescriptorsSocketsAndThreads(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", func(s *spec.Container) {
		s.Process.Rlimits = []spec.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 77, Hard: 99}}
	}, "sh", "-c", "exec 3</dev/null 4</dev/null; busybox nc -l -p 4242 3<&- 4<&- & exec sleep 1000")
	n.start(s)
	group, err := n.cgroups.Load(s.Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	// The shell has descriptors of its own until it has become sleep.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		in, err := n.Inside("a")
		if err != nil {
			t.Fatal(err)
		}
		pids, err := group.Procs()
		if err != nil {
			t.Fatal(err)
		}
		open := 0
		for _, pid := range pids {
			entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			open += len(entries)
		}
		if len(pids) == 2 && in.Threads == 2 && in.OpenFiles == uint64(open) && in.Sockets != nil && *in.Sockets == 1 && in.OpenFilesLimit == 77 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v of processes %v; want 2 threads, %d descriptors with one socket, a limit of 77", in, pids, open)
		}
	}
	if _, err := n.Inside("none"); !errors.Is(err, ErrUnknown) {
		t.Errorf("of an unknown container: %v", err)
	}
}

func TestStatsCountProcessesAlsoOfExecs(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sh", "-c", "sleep 1000 & exec sleep 1000")
	n.start(s)
	p := s.Process
	p.Args = []string{"sleep", "1000"}
	x, err := n.Exec(t.Context(), "a", p, spec.ExecIO{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stats, err := n.Stats(s.Cgroup, 0)
		if err != nil {
			t.Fatal(err)
		}
		if stats.Processes == 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d processes, want 3", stats.Processes)
		}
	}
	if _, err := n.Stats(testGroup+"/none", 0); !errors.Is(err, ErrUnknown) {
		t.Errorf("of an unknown group: %v", err)
	}
	if _, err := n.CPUTime(testGroup + "/none"); !errors.Is(err, ErrUnknown) {
		t.Errorf("processor time of an unknown group: %v", err)
	}
	if used, err := n.CPUTime(s.Cgroup); err != nil || used == 0 {
		t.Errorf("processor time %d, %v", used, err)
	}
}

func TestWritableLayerIsWhatDuSays(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sh", "-c", "head -c 3000000 /dev/zero > /tmp/x; for i in 1 2 3 4 5 6 7 8 9; do echo $i > /etc/$i; done; rm -r /bin/wc; exec sleep 1000")
	n.start(s)
	upper := filepath.Join(s.Rootfs.Writable, "upper")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Lstat(filepath.Join(upper, "bin/wc")); err == nil || time.Now().After(end) {
			break
		}
	}
	got, err := n.Writable(t.Context(), s.Rootfs)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(flag string) uint64 {
		out, err := exec.Command(testtool.Need(t, "du", "coreutils"), flag, "-s", upper).Output()
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseUint(strings.Fields(string(out))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if bytes, inodes := ask("--block-size=1"), ask("--inodes"); got.Bytes != bytes || got.Inodes != inodes || bytes < 3000000 {
		t.Errorf("%d bytes in %d inodes, du says %d in %d", got.Bytes, got.Inodes, bytes, inodes)
	}
	if _, err := n.Writable(t.Context(), spec.Rootfs{Writable: filepath.Join(n.root, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a layer that is not there: %v", err)
	}
}

func TestFileSystemIsThatOfThePath(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	got, err := n.FileSystem(n.root)
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(n.root, &fs); err != nil {
		t.Fatal(err)
	}
	if got.Bytes != fs.Blocks*uint64(fs.Bsize) || got.Inodes != fs.Files || got.FreeInodes > got.Inodes || got.FreeBytes > got.Bytes || got.Device == "" {
		t.Errorf("%+v, statfs says %+v", got, fs)
	}
	if tmpfs, err := n.FileSystem("/proc"); err != nil || !strings.Contains(tmpfs.Device, ":") {
		t.Errorf("of a file system without a device: %+v, %v", tmpfs, err)
	}
}
