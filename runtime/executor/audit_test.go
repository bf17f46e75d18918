package executor

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/audit"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/spec"
)

func TestOnlyGroupsWithTheMarkOfThisInstanceAreOurs(t *testing.T) {
	root, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root.Path, "cri-mini-audit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	top := strings.TrimPrefix(dir, root.Path)
	state, parent := t.TempDir(), top+"/parent"
	mark, err := makeInstance(state)
	if err != nil {
		t.Fatal(err)
	}
	id := func(letter string) string { return strings.Repeat(letter, 64) }
	pod := top + "/kubepods.slice/kubepods-podx.slice/"
	groups := []struct{ path, mark, want, owner string }{
		{parent, "", "", ""},
		{parent + "/" + id("a"), mark, "ours", id("a")},
		{parent + "/" + id("b"), state, "foreign", id("b")}, // as earlier versions mark
		{parent + "/" + id("c"), strings.Repeat("A", 26), "foreign", id("c")},
		{parent + "/" + id("d"), "", "foreign", id("d")},
		{parent + "/somebody's", "", "foreign", ""},
		{parent + "/nameless", mark, "foreign", ""},
		{parent + "/cri-mini-" + id("e") + ".scope", "", "ours", id("e")},
		{parent + "/cri-mini-" + id("e") + ".scope/container", mark, "", ""},
		{parent + "/cri-mini-" + id("e") + ".scope/keeper", "", "", ""},
		{parent + "/cri-mini-" + id("f") + ".scope", "", "foreign", id("f")},
		{parent + "/cri-mini-" + id("f") + ".scope/container", state, "", ""},
		{top + "/kubepods.slice", "", "", ""},
		{path.Clean(pod), "", "", ""},
		{pod + id("0"), mark, "ours", id("0")},
		{pod + id("1"), state, "foreign", id("1")},
		{pod + id("2"), strings.Repeat("A", 26), "", ""},
		{pod + id("3"), "", "", ""},
		{pod + "cri-mini-" + id("4") + ".scope", "", "ours", id("4")},
		{pod + "cri-mini-" + id("4") + ".scope/container", mark, "", ""},
		// In containers of other runtimes nothing is looked for.
		{pod + "cri-containerd-" + id("5") + ".scope", "", "", ""},
		{pod + "cri-containerd-" + id("5") + ".scope/" + id("6"), mark, "", ""},
		{top + "/" + id("7"), "", "", ""},
		{top + "/" + id("7") + "/" + id("8"), mark, "", ""},
	}
	want := map[string]string{}
	for _, g := range groups {
		if err := os.Mkdir(root.Path+g.path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(root.Path + g.path) })
		if g.mark != "" {
			if err := unix.Setxattr(root.Path+g.path, "trusted.cri-mini", []byte(g.mark), 0); err != nil {
				t.Fatal(err)
			}
		}
		if g.want != "" {
			want[g.path] = g.want + " " + g.owner
		}
	}
	things, err := Things(state, root, parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range things {
		if !strings.HasPrefix(thing.Name, top+"/") {
			t.Errorf("not of this test: %+v", thing)
			continue
		}
		got := "ours " + thing.Owner
		if thing.Foreign != "" {
			got = "foreign " + thing.Owner
		}
		if got != want[thing.Name] {
			t.Errorf("%s is %q (%s), want %q", thing.Name, got, thing.Foreign, want[thing.Name])
		}
		delete(want, thing.Name)
	}
	for name, is := range want {
		t.Errorf("%s is not found, want %q", name, is)
	}

	// The same folder path in another mount namespace is another folder.
	things, err = Things(t.TempDir(), root, parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range things {
		if thing.Foreign == "" {
			t.Errorf("%s counts as of an instance without a mark", thing.Name)
		}
	}
}

func TestGroupOfAContainerThatHasNoMarkIsFoundByItsNote(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	id := strings.Repeat("a", 64)
	c := n.container(id, nil, "sleep", "1000")
	n.start(c)
	for _, marked := range []bool{true, false} {
		if !marked {
			if err := unix.Removexattr(n.cgroups.Path+c.Cgroup, "trusted.cri-mini"); err != nil {
				t.Fatal(err)
			}
		}
		things, err := n.Things(t.Context(), "/none")
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, thing := range things {
			if thing.Kind == kindGroup && thing.Name == c.Cgroup && (thing.Foreign == "") == marked {
				found++
			}
		}
		if found != 1 {
			t.Errorf("marked %t: group found %d times, want once: %+v", marked, found, things)
		}
	}
	if err := n.Remove(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestMarkOfAnInstanceStaysAndIsMadeAnewWhenCutOff(t *testing.T) {
	state := t.TempDir()
	first, err := makeInstance(state)
	if err != nil {
		t.Fatal(err)
	}
	again, err := makeInstance(state)
	if err != nil || again != first {
		t.Errorf("the second daemon has the mark %q, %v, want %q", again, err, first)
	}
	if other, err := makeInstance(t.TempDir()); err != nil || other == first {
		t.Errorf("another folder has the mark %q, %v", other, err)
	}
	if err := os.WriteFile(filepath.Join(state, instanceFile), []byte(first[:7]), 0o600); err != nil {
		t.Fatal(err)
	}
	if part, err := readInstance(state); err != nil || part != "" {
		t.Errorf("a part of a mark is read as %q, %v", part, err)
	}
	if next, err := makeInstance(state); err != nil || len(next) != len(first) || next == first {
		t.Errorf("after a cut off one the mark is %q, %v", next, err)
	}
}

func TestFullStateFolderDoesNotKeepTheDaemonFromItsMark(t *testing.T) {
	state := t.TempDir()
	if err := unix.Mount("full", state, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(state, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(state, "filling"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	mark, err := makeInstance(state)
	if !errors.Is(err, unix.ENOSPC) || !instanceForm.MatchString(mark) {
		t.Errorf("mark %q, %v; want a mark, and that the disk is full", mark, err)
	}
	if kept, err := readInstance(state); kept != "" || err != nil {
		t.Errorf("kept %q, %v", kept, err)
	}
}

func TestRemovalOfAContainerStopsAtAMountInItsWritableLayer(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	writable := filepath.Join(t.TempDir(), "layer")
	inside := filepath.Join(writable, "upper/m")
	if err := os.MkdirAll(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", inside, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(inside, unix.MNT_DETACH)
	precious := filepath.Join(inside, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := spec.Container{ID: "c", Rootfs: spec.Rootfs{Writable: writable}}
	if err := n.Remove(t.Context(), s); err == nil || !strings.Contains(err.Error(), inside) {
		t.Errorf("remove: %v, want an error that names %s", err, inside)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what was mounted: %v", err)
	}
	if err := unix.Unmount(inside, 0); err != nil {
		t.Fatal(err)
	}
	if err := n.Remove(t.Context(), s); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(writable); !os.IsNotExist(err) {
		t.Errorf("the layer after the removal: %v", err)
	}
}

func TestNamespacesThatTheMonitorKeepsForNobodyAreFoundAndLetGo(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	id := strings.Repeat("a", 64)
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := n.pin(t.Context(), id, files{"net": file}); err != nil {
		t.Fatal(err)
	}
	kept := func() map[string]audit.Thing {
		things, err := n.Things(t.Context(), "/none")
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]audit.Thing{}
		for _, thing := range things {
			if thing.Kind == kindPin {
				found[thing.Name] = thing
			}
		}
		return found
	}
	before := kept()
	if len(before) != 2 || before[id].Owner != id || before[id].Foreign != "" || before["pod"].Foreign == "" {
		t.Fatalf("kept are %+v; want those of a pod with an id, and of the test's own", before)
	}
	if err := before[id].Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if after := kept(); len(after) != 1 || after["pod"].Name == "" {
		t.Errorf("after the removal are kept: %+v", after)
	}
	if _, err := n.sandbox(t.Context(), id); !errors.Is(err, ErrUnknown) {
		t.Errorf("namespaces that were let go: %v", err)
	}
}
