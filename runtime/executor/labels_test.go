package executor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// The attribute can be kept without SELinux, so this is seen here too.
func TestVolumeIsRelabelledAndWhatBelongsToTheNodeIsNot(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	e := new(Executor)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	labelOf := func(path string) string {
		var text [128]byte
		n, err := unix.Lgetxattr(path, "security.selinux", text[:])
		if err != nil {
			return err.Error()
		}
		return strings.TrimRight(string(text[:n]), "\x00")
	}
	m := spec.Mount{Kind: spec.BindMount, Source: dir, Target: "/data"}
	for _, asked := range []bool{false, true} {
		m.Relabel = asked
		tree, _, err := e.bind(t.Context(), m, label)
		if err != nil {
			t.Fatal(err)
		}
		tree.Close()
		if got := labelOf(file); (got == label) != asked {
			t.Errorf("relabel %t: the file has %q", asked, got)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	before := labelOf("/etc")
	for _, path := range []string{"/etc", link, "/usr/bin"} {
		m.Source = path
		if _, _, err := e.bind(t.Context(), m, label); err == nil || !strings.Contains(err.Error(), "not allowed") || !strings.Contains(err.Error(), path) {
			t.Errorf("relabel %s: %v", path, err)
		}
	}
	if got := labelOf("/etc"); got != before {
		t.Errorf("/etc has the label %q, had %q", got, before)
	}
}

func TestFileSystemsOfALabelledContainerGetTheLabel(t *testing.T) {
	if got := labelled(""); len(got) != 0 {
		t.Errorf("without a label the options are %v", got)
	}
	// The kernel takes the option only with SELinux; that it is there, and
	// not forgotten for one of them, shows in the refusal.
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		return
	}
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	n := newNode(t, spec.Sandbox{})
	for what, make := range map[string]func() error{
		"/dev": func() error { _, err := devFolder(nil, false, nil, label); return err },
		"tmpfs": func() error {
			_, _, err := n.mount(t.Context(), spec.Mount{Kind: spec.TmpfsMount, Target: "/t", Size: 4096}, spec.Container{Rootfs: spec.Rootfs{Label: label}})
			return err
		},
		"root file system": func() error {
			_, err := n.mountRootfs(spec.Rootfs{Layers: []spec.Layer{busybox(t)}, Writable: filepath.Join(n.root, "w"), Label: label})
			return err
		},
		"/dev/shm": func() error { return n.shm(spec.Sandbox{Label: label}, files{}) },
		"image": func() error {
			volume := spec.Mount{Kind: spec.ImageMount, Target: "/i", Layers: []spec.Layer{busybox(t)}}
			_, _, err := n.mount(t.Context(), volume, spec.Container{Rootfs: spec.Rootfs{Writable: filepath.Join(n.root, "i"), Label: label}})
			return err
		},
	} {
		if err := make(); err == nil || !strings.Contains(err.Error(), "option context") {
			t.Errorf("%s: %v, want a refusal of the option context", what, err)
		}
	}
}
