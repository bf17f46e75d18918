package hostview

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// sleeper is a process in some namespaces of its own.
func sleeper(t *testing.T, flags uintptr) int {
	t.Helper()
	cmd := exec.Command("sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestNamespacesAreComparedWithHostAndPod(t *testing.T) {
	v, err := Of(sleeper(t, syscall.CLONE_NEWUTS|syscall.CLONE_NEWPID|syscall.CLONE_NEWNS), 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range v.Namespaces {
		got[n.Kind] = n.Shared
	}
	for kind, want := range map[string]string{"uts": "pod", "pid": "", "mnt": "", "net": "host", "ipc": "host", "user": "host", "time": "host"} {
		if got[kind] != want {
			t.Errorf("%s namespace is shared with %q, want %q", kind, got[kind], want)
		}
	}
	if want := "nsenter --target " + strconv.Itoa(v.PID) + " --mount --uts --pid -- /bin/sh"; v.Nsenter != want {
		t.Errorf("enter with %q, want %q", v.Nsenter, want)
	}
	out, err := exec.Command("sh", "-c", strings.Replace(v.Nsenter, "/bin/sh", "readlink /proc/self/ns/uts", 1)).Output()
	if err != nil || !strings.Contains(strings.TrimSpace(string(out)), "uts:[") || !hasID(v, strings.TrimSpace(string(out))) {
		t.Errorf("the command enters %s, %v", out, err)
	}
}

func hasID(v *View, id string) bool {
	for _, n := range v.Namespaces {
		if n.ID == id {
			return true
		}
	}
	return false
}

func TestViewOfOurselves(t *testing.T) {
	v, err := Of(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Mounts) == 0 || len(v.Capabilities) != 5 || v.User == "" || v.Cgroup.Path == "" {
		t.Errorf("view lacks something: %+v", v)
	}
	var out bytes.Buffer
	if err := v.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"net namespace", "effective capabilities", "cap_", "mounts", "  /proc"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("print lacks %q:\n%s", want, out.String())
		}
	}
}

func TestEndedProcessIsSaidSo(t *testing.T) {
	if _, err := Of(1<<22+1, 0); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("Of(no process): %v", err)
	}
}

func TestMountLines(t *testing.T) {
	m, err := parseMount(`36 35 98:0 /part\040of /a\040b rw,nosuid shared:1 master:2 - ext4 /dev/x rw`)
	if err != nil || m != (Mount{Target: "/a b", Type: "ext4", Source: "/dev/x", Root: "/part of", Options: "rw,nosuid shared:1 master:2"}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"", "1 2 3", "36 35 98:0 / /a rw - ext4"} {
		if _, err := parseMount(bad); err == nil {
			t.Errorf("line %q is accepted", bad)
		}
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add(`36 35 98:0 / / rw - ext4 /dev/x rw`)
	f.Add(` - `)
	f.Fuzz(func(t *testing.T, line string) { parseMount(line) })
}
