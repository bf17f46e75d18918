package kubelet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/enclosure"
)

// clustered is a node whose pods come from a server: those that are static a
// kubelet does not evict.
func clustered(t *testing.T, change func(*node)) (*node, *apiServer) {
	t.Helper()
	server := startAPIServer(t)
	n := startWith(t, func(n *node) {
		change(n)
		if n.dir == "" {
			n.makeDir()
		}
		server.kubeconfig(n.dir + "/kubeconfig")
		n.Flags = append(n.Flags, "--kubeconfig", n.dir+"/kubeconfig")
	})
	n.server = server
	n.eventually("the node is ready", func() error { return server.nodeIs("Ready", "True") })
	return n, server
}

func (s *apiServer) nodeIs(kind, want string) error {
	got, err := s.nodeCondition(kind)
	if err == nil && got != want {
		err = fmt.Errorf("condition %s of the node is %s", kind, got)
	}
	return err
}

// give has the server tell of a pod.
func (n *node) give(name string, values any) {
	n.t.Helper()
	n.server.addPod(n.fill("pods/"+name+".yaml", values))
}

// awaitReady waits until a pod of the server is ready.
func (n *node) awaitReady(name string) {
	n.t.Helper()
	n.eventually(name+" is ready", func() error {
		p, err := n.server.pod(name)
		if err == nil && p.condition("Ready") != "True" {
			err = fmt.Errorf("%s", p)
		}
		return err
	})
}

// evicted waits until the kubelet has evicted a pod, for a reason, and nothing
// of it is left; then the server forgets it.
func (n *node) evicted(name, why string) {
	n.t.Helper()
	n.within(2*patience, name+" is evicted", func() error {
		p, err := n.server.pod(name)
		if err == nil && (p.Status.Phase != "Failed" || p.Status.Reason != "Evicted") {
			err = fmt.Errorf("%s", p)
		}
		return err
	})
	p, err := n.server.pod(name)
	if err != nil || !strings.Contains(p.Status.Message, why) {
		n.t.Errorf("%s was evicted, %v, because %q; want %q", name, err, p.Status.Message, why)
	}
	n.dismiss(name)
	n.eventually("nothing is left of "+name, func() error {
		left, err := n.knownAs(name)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%q", left)
		}
		return err
	})
}

// dismiss removes a pod as a user would and waits until it has ended.
func (n *node) dismiss(name string) {
	n.t.Helper()
	n.server.deletePod(name)
	n.eventually(name+" has ended", func() error {
		if _, err := n.server.pod(name); err == nil {
			return fmt.Errorf("the server still has it")
		}
		return n.ended(name)
	})
}

// unharmed tells whether the neighbour of those that are evicted notices.
func (n *node) unharmed(name string) {
	n.t.Helper()
	p, err := n.server.pod(name)
	if err != nil {
		n.t.Fatal(err)
	}
	if c, err := p.container("main"); err != nil || c.RestartCount != 0 || c.State.Running == nil {
		n.t.Errorf("%s, which took nothing: %v, %s", name, err, p)
	}
}

// TestPodsThatTakeTheDiskAreEvicted runs on a disk of its own.
func TestPodsThatTakeTheDiskAreEvicted(t *testing.T) {
	needControllers(t) // for the limits of the neighbour
	n, server := clustered(t, func(n *node) {
		n.DiskReserve = "200Mi"
		n.makeDir()
		smallDisk(t, n.dir, "500M")
	})
	n.give("modest", nil)
	n.awaitReady("modest")
	n.give("overfull", nil)
	n.give("overfullvolume", nil)
	n.evicted("overfull", `Container main exceeded its local ephemeral storage limit "20Mi"`)
	n.evicted("overfullvolume", `Usage of EmptyDir volume "data" exceeds the limit "20Mi"`)
	if err := server.nodeIs("DiskPressure", "False"); err != nil {
		t.Errorf("with a disk that is free enough: %v", err)
	}
	n.give("filler", nil)
	n.within(2*patience, "the disk is said to be short", func() error { return server.nodeIs("DiskPressure", "True") })
	n.evicted("filler", "The node was low on resource: ephemeral-storage")
	n.within(2*patience, "the disk is free again", func() error { return server.nodeIs("DiskPressure", "False") })
	n.unharmed("modest")
	n.dismiss("modest")
}

// smallDisk mounts one at dir for as long as the test lasts. It is a device: of
// memory the kubelet mixes up the mounts.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	if !exists("/dev/loop-control") {
		t.Skip("kernel feature missing: loop devices")
	}
	image := filepath.Join(t.TempDir(), "disk")
	for _, command := range [][]string{
		{"truncate", "-s", size, image}, {"mke2fs", "-q", "-t", "ext4", "-m", "0", image}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
}

// TestPodThatTakesTheMemoryIsEvicted has the kubelet keep free all but 400 MiB
// of what is free before it starts.
func TestPodThatTakesTheMemoryIsEvicted(t *testing.T) {
	needControllers(t)
	n, server := clustered(t, func(n *node) { n.MemoryReserve = fmt.Sprintf("%dMi", n.freeMemory()-400) })
	n.give("modest", nil)
	n.awaitReady("modest")
	if err := server.nodeIs("MemoryPressure", "False"); err != nil {
		t.Errorf("with free memory: %v", err)
	}
	n.give("eater", map[string]int{"Size": 700})
	n.within(2*patience, "memory is said to be short", func() error { return server.nodeIs("MemoryPressure", "True") })
	n.evicted("eater", "The node was low on resource: memory")
	n.within(2*patience, "memory is free again", func() error { return server.nodeIs("MemoryPressure", "False") })
	n.unharmed("modest")
	n.give("eater", map[string]int{"Size": 1})
	n.awaitReady("eater")
	n.dismiss("eater")
	n.dismiss("modest")
}

// freeMemory is in MiB what the kubelet takes for it: what the root of the groups
// does not use.
func (n *node) freeMemory() int {
	n.t.Helper()
	if !exists(enclosure.CgroupRoot + "/memory.current") { // the root of all has none
		return meminfo(n.t, "MemAvailable")
	}
	return meminfo(n.t, "MemTotal") - int(n.workingSet(enclosure.CgroupRoot)/mebibyte)
}

func meminfo(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("no %s in /proc/meminfo", name)
	return 0
}
