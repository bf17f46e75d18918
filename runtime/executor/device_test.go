package executor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

func given(n uint32) *uint32 { return &n }

// described are nodes as a CDI device may ask for them. The numbers of disk have
// no driver: whoever may open it learns that.
var described = []spec.Device{
	{HostPath: "/dev/zero", ContainerPath: "/dev/mine/zero", Permissions: "rw", Mode: given(0o640), UID: given(7), GID: given(8)},
	{HostPath: "/no/such", ContainerPath: "/dev/full2", Permissions: "rw", Kind: spec.CharacterDevice, Major: 1, Minor: 7},
	{HostPath: "/no/such", ContainerPath: "/dev/kmsg", Kind: spec.CharacterDevice, Major: 1, Minor: 11, Mode: given(0o666)},
	{HostPath: "/no/such", ContainerPath: "/dev/disk", Permissions: "r", Kind: spec.BlockDevice, Major: 240, Minor: 1048575, UID: given(70000)},
	{HostPath: "/no/such", ContainerPath: "/dev/pipe", Permissions: "rwm", Kind: spec.Pipe, Mode: given(0o600)},
}

const useDescribed = `cd /dev; stat -c '%n %F %a %u %g %t %T' mine/zero full2 kmsg disk pipe
head -c 1 mine/zero | wc -c; (echo > disk) 2>&1; (echo > full2) 2>&1; cat kmsg 2>&1; (echo through > pipe &) ; cat pipe; cat disk 2>&1; true`

func checkDescribed(t *testing.T, got string, owner string) {
	t.Helper()
	for _, want := range []string{
		"mine/zero character special file 640 7 8 1 5", "full2 character special file 666 0 0 1 7", "kmsg character special file 666 0 0 1 b",
		"disk block special file 666 " + owner + " 0 f0 fffff", "pipe fifo 600 0 0",
		"\n1\n", "cat: can't open 'disk': No such device or address", "can't create disk: Operation not permitted", "No space left on device", "can't open 'kmsg': Operation not permitted", "\nthrough\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestDescribedDevicesAreMadeAndFiltered(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	checkDescribed(t, n.run("a", useDescribed, func(s *spec.Container) { s.Devices = described }), "70000")
}

// The owner without a place in the pod is its root and nobody else's.
func TestDescribedDevicesInAUserNamespace(t *testing.T) {
	ids := &spec.IDMapping{Host: 100000, Length: 65536}
	n := newNode(t, spec.Sandbox{IDs: ids})
	got := n.run("a", useDescribed, func(s *spec.Container) {
		s.Rootfs.IDs = ids
		s.Devices = described
	})
	checkDescribed(t, got, "0")
}

func TestPrivilegedMayOpenEveryDevice(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	got := n.run("a", "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg | wc -c", func(s *spec.Container) {
		s.Privileged, s.Resources.AllDevices = true, true
		s.Process.Capabilities.Effective |= 1<<unix.CAP_SYSLOG | 1<<unix.CAP_SYS_ADMIN
		s.Process.Capabilities.Permitted, s.Process.Capabilities.Bounding = s.Process.Capabilities.Effective, s.Process.Capabilities.Effective
	})
	if got != "1" {
		t.Errorf("reading the kernel's log gives %q", got)
	}
}

func TestMissingDeviceIsNamedAndLeavesNothing(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	for host, reason := range map[string]string{"/dev/no-such-device": "no such file", "/etc/passwd": "not a device"} {
		s := n.container("a", func(s *spec.Container) {
			s.Devices = []spec.Device{{HostPath: host, ContainerPath: "/dev/x", Permissions: "r"}}
		}, "true")
		var wrong *spec.InputError
		if err := n.Prepare(t.Context(), s); !errors.As(err, &wrong) || wrong.Part != spec.InputDevice || wrong.Name != "/dev/x" || wrong.Value != host || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestBindAloneLeavesOutWhatIsMountedBelow(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(below, unix.MNT_DETACH)
	if err := os.WriteFile(below+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, spec.Sandbox{})
	got := n.run("a", "ls /all/below; echo --; ls /alone/below; stat -c '%a %u' /scratch; mount | grep scratch", func(s *spec.Container) {
		s.Mounts = []spec.Mount{
			{Kind: spec.BindMount, Source: dir, Target: "/all"}, {Kind: spec.BindMount, Source: dir, Target: "/alone", Alone: true},
			{Kind: spec.TmpfsMount, Target: "/scratch", Size: 65536, Mode: 0o700, NoSuid: true},
		}
	})
	if !strings.HasPrefix(got, "file\n--\n700 0\n") || !strings.Contains(got, "nosuid") || !strings.Contains(got, "size=64k") {
		t.Errorf("inside:\n%s", got)
	}
}

func TestScoreForTheOOMKillerIsThatOfEachProcess(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	score := 321
	n.start(n.container("a", func(s *spec.Container) { s.Process.OOMScoreAdj = &score }, "sleep", "1000"))
	first, err := os.ReadFile("/proc/" + strconv.Itoa(pidOf(t, n, "a")) + "/oom_score_adj")
	if err != nil || strings.TrimSpace(string(first)) != "321" {
		t.Errorf("first process: %q, %v", first, err)
	}
	joined := spec.Process{Args: []string{"cat", "/proc/self/oom_score_adj"}, Env: []string{"PATH=/bin"}, Cwd: "/", OOMScoreAdj: &score}
	x, err := n.Exec(t.Context(), "a", joined, spec.ExecIO{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	text, err := io.ReadAll(x.Stdout())
	if err != nil || strings.TrimSpace(string(text)) != "321" {
		t.Errorf("exec'ed process: %q, %v", text, err)
	}
}

func pidOf(t *testing.T, n *node, id string) int {
	t.Helper()
	r, err := n.running(id)
	if err != nil {
		t.Fatal(err)
	}
	return r.pid
}
