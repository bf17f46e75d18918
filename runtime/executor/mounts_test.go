package executor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

func TestMountsMasksAndReadonly(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "loose"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got := n.run("a", `cat /data/sub/file; cat /single; touch /data/sub/new 2>&1; touch /x 2>&1; cat /proc/kcore | grep -c .; echo masked $(ls -A /full | wc -l) $(ls -A /sys/firmware | wc -l) $(stat -c %s /full-file); touch /full/new 2>&1; `+
		`echo x 2>&1 >/proc/sys/kernel/domainname; echo x 2>&1 >/fixed/file; echo x >/loose && echo loose; readlink /proc/self/cwd; echo end`,
		func(s *spec.Container) {
			s.ReadonlyRootfs = true
			s.MaskedPaths = []string{"/proc/kcore", "/proc/acpi", "/proc/scsi", "/sys/firmware", "/nowhere/at/all", "/proc/keys/x", "/full", "/full-file"}
			s.ReadonlyPaths = []string{"/proc/sys", "/nowhere", "/fixed"}
			s.Process.Cwd = "/made/for/me"
			s.Mounts = []spec.Mount{
				{Kind: spec.BindMount, Source: host, Target: "/data/sub", ReadOnly: true},
				{Kind: spec.BindMount, Source: filepath.Join(host, "file"), Target: "/single"},
				{Kind: spec.BindMount, Source: host, Target: "/full"},
				{Kind: spec.BindMount, Source: filepath.Join(host, "file"), Target: "/full-file"},
				{Kind: spec.BindMount, Source: host, Target: "/fixed"},
				{Kind: spec.BindMount, Source: filepath.Join(host, "loose"), Target: "/loose"},
			}
		})
	for _, want := range []string{"from the host\nfrom the host", "new: Read-only file system", "/x: Read-only file system", "\n0\n",
		"masked 0 0 0\n", "/full/new: Read-only file system",
		"can't create /proc/sys/kernel/domainname: Read-only file system", "can't create /fixed/file: Read-only file system", "\nloose\n",
		"/made/for/me", "end"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

// All three modes, by what is seen on the other side of a mount made later.
func TestMountsPassOnWhenAskedTo(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	for mode, sees := range map[spec.Propagation]struct{ container, node bool }{
		spec.Private:         {false, false},
		spec.HostToContainer: {true, false},
		spec.Bidirectional:   {true, true},
	} {
		t.Run(string(mode), func(t *testing.T) {
			dir := tmpfsOf(t, unix.MS_SHARED)
			for _, name := range []string{"of-node", "of-container"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s := n.container(string(mode), func(s *spec.Container) {
				s.Mounts = []spec.Mount{{Kind: spec.BindMount, Source: dir, Target: "/m", Propagation: mode}}
				s.Privileged, s.Resources.AllDevices = true, true
				s.Process.Capabilities.Effective |= 1 << unix.CAP_SYS_ADMIN
				s.Process.Capabilities.Permitted, s.Process.Capabilities.Bounding = s.Process.Capabilities.Effective, s.Process.Capabilities.Effective
			}, "sh", "-c", "mount -t tmpfs none /m/of-container && touch /m/of-container/file && touch /m/mounted; until [ -e /m/go ]; do sleep 0.05; done; ls /m/of-node; echo end")
			n.start(s)
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if _, err := os.Stat(filepath.Join(dir, "mounted")); err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the container mounts nothing: %s", logText(t, s.LogPath))
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "of-container/file")); (err == nil) != sees.node {
				t.Errorf("the node sees the container's mount: %v, want %v", err == nil, sees.node)
			}
			if err := unix.Mount("tmpfs", filepath.Join(dir, "of-node"), "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"of-node/late", "go"} {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			n.exit(s.ID)
			if got := logText(t, s.LogPath); strings.Contains(got, "late\n") != sees.container || !strings.HasSuffix(got, "end\n") {
				t.Errorf("below the node's mount the container sees %q; want the file in it: %v", got, sees.container)
			}
		})
	}
}

func TestPropagationOfAMountThatIsNotSharedIsRefused(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	dir := tmpfsOf(t, unix.MS_PRIVATE)
	for _, mode := range []spec.Propagation{spec.HostToContainer, spec.Bidirectional} {
		s := n.container(string(mode), func(s *spec.Container) {
			s.Mounts = []spec.Mount{{Kind: spec.BindMount, Source: dir, Target: "/m", Propagation: mode}}
		}, "true")
		var wrong *spec.InputError
		if err := n.Prepare(t.Context(), s); !errors.As(err, &wrong) || wrong.Value != dir || !strings.Contains(err.Error(), "not shared") {
			t.Errorf("%s: %v, want it refused with the path", mode, err)
		}
	}
}

// tmpfsOf is a mount of its own that passes on, or does not.
func tmpfsOf(t *testing.T, propagation uintptr) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", propagation, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}
