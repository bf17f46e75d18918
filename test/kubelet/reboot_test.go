//go:build reboot

package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These two are run by hack/testreboot, each in a machine of its own that has the
// same disk. The first one ends with its machine's power.

const (
	rebootDir = "/disk/node"
	noted     = "/disk/before.json"
)

// before is what there was when the power went.
type before struct {
	Boot       string
	Containers []string // ids
	Files      []string // of pods and containers, below the folder of the node
}

var rebootPods = []string{"plain", "talk", "steady", "hostport", "users"}

const rebootCrowd = 20

// startOnDisk starts a node whose folder outlives the machine and whose state
// does not, as a distribution has /var and /run.
func startOnDisk(t *testing.T) *node {
	return startWith(t, func(n *node) {
		n.dir = rebootDir
		// By default the kubelet keeps one, for those who ask for its log.
		n.Flags = []string{"--maximum-dead-containers-per-container", "0"}
		for _, name := range []string{"daemon.log", "kubelet.log"} { // of the boot before
			if err := os.Remove(filepath.Join(n.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(n.dir+"/run", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", n.dir+"/run", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	})
}

func boot(t *testing.T) string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (n *node) allReady() error {
	for _, name := range rebootPods {
		p, err := n.pod(name)
		if err != nil {
			return err
		}
		if p.condition("Ready") != "True" {
			return fmt.Errorf("%s: %s", name, p)
		}
	}
	running, err := n.running("crowd")
	if err == nil && running != rebootCrowd {
		err = fmt.Errorf("%d of the crowd run", running)
	}
	return err
}

// containers are the ids of all that run.
func (n *node) containers() []string {
	n.t.Helper()
	out, err := n.cli("ps", "-q")
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Fields(out)
}

// files are those that belong to one pod or container each.
func (n *node) files() []string {
	n.t.Helper()
	return slices.DeleteFunc(n.remains(), func(path string) bool { return !strings.HasPrefix(path, n.dir) })
}

func TestPodsRunWhenThePowerGoes(t *testing.T) {
	n := startOnDisk(t)
	for _, name := range rebootPods {
		n.add(name)
	}
	for i := range rebootCrowd {
		n.writeWith("pods/crowd.yaml", fmt.Sprintf("%s/crowd%d.yaml", n.Manifests(), i), map[string]int{"Index": i})
	}
	n.within(5*time.Minute, "all pods are ready", n.allReady)
	note, err := json.Marshal(before{boot(t), n.containers(), n.files()})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(noted)
	if err != nil {
		t.Fatal(err)
	}
	// Only what the test needs is put on the disk. What the node has written it
	// has to have put there itself.
	if _, err := file.Write(note); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Sync(), os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0)); err != nil {
		t.Fatal(err)
	}
	select {}
}

func TestRebootBringsAllPodsBackAndLeavesNothingOfTheTimeBefore(t *testing.T) {
	text, err := os.ReadFile(noted)
	if err != nil {
		t.Fatalf("the first boot did not come to its end: %v", err)
	}
	var was before
	if err := json.Unmarshal(text, &was); err != nil {
		t.Fatal(err)
	}
	if len(was.Containers) < len(rebootPods)+rebootCrowd || len(was.Files) < 3*len(was.Containers) || was.Boot == boot(t) {
		t.Fatalf("there was no other boot with pods: %+v", was)
	}
	begin := time.Now()
	n := startOnDisk(t)
	n.within(5*time.Minute, "all pods are back", n.allReady)
	t.Logf("%d pods are back %s after the start of the daemon", len(rebootPods)+rebootCrowd, time.Since(begin).Round(time.Second/10))
	for _, id := range n.containers() {
		if slices.Contains(was.Containers, id) {
			t.Errorf("container %s is said to run, and it ran before the boot", id)
		}
	}
	n.within(5*time.Minute, "nothing remains of the time before", func() error {
		for _, path := range n.files() {
			if slices.Contains(was.Files, path) {
				return errors.New(path)
			}
		}
		return nil
	})
	if got := n.run("plain", "main", "cat", "/tmp/www/index.html"); got != "hello\n" {
		t.Errorf("a pod says %q", got)
	}
	left, _ := filepath.Glob(n.Manifests() + "/*.yaml")
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	n.within(5*time.Minute, "nothing is left", func() error {
		if left := n.remains(); len(left) > 0 {
			return fmt.Errorf("%q", left)
		}
		return nil
	})
}
