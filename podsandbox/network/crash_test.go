package network

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cri-mini/podsandbox/network/internal/bridge"
	"cri-mini/podsandbox/network/internal/netns"
)

// What a Setup or Teardown that was killed after each of its steps leaves must
// go away by Collect, with or without the pod's namespace.
func TestCollectCleansAfterEachStep(t *testing.T) {
	type step struct {
		name string
		do   func(w *world, p Pod)
	}
	lease := func(w *world, p Pod) *entry {
		given, err := w.net.builtin.pool.Take()
		must(t, err)
		e := &entry{record: record{ID: p.ID, Form: formBuiltin, Addresses: given, Ports: p.Ports}}
		must(t, w.net.records.save(e.record))
		return e
	}
	steps := []step{
		{"record is half written", func(w *world, p Pod) {
			must(t, os.WriteFile(w.net.records.path(p.ID)+".new-1", []byte("{"), 0o600))
		}},
		{"record is damaged", func(w *world, p Pod) {
			must(t, os.WriteFile(w.net.records.path(strings.Repeat("a", 64)), nil, 0o600))
		}},
		{"record is written", func(w *world, p Pod) { lease(w, p) }},
		{"veth pair is made", func(w *world, p Pod) {
			e := lease(w, p)
			must(t, w.net.builtin.bridge.Attach(p.ID, p.NetNSFile, e.Addresses))
		}},
		{"host ports are open", func(w *world, p Pod) {
			e := lease(w, p)
			must(t, w.net.builtin.bridge.Attach(p.ID, p.NetNSFile, e.Addresses))
			must(t, w.net.builtin.firewall.Add(translations(e.Ports, e.Addresses)))
		}},
		{"Setup is done", func(w *world, p Pod) { w.setup(p) }},
		{"host ports are closed again", func(w *world, p Pod) {
			w.setup(p)
			must(t, w.net.builtin.closePorts(w.net.pods[p.ID]))
		}},
		{"record is removed", func(w *world, p Pod) {
			w.setup(p)
			must(t, w.net.records.remove(p.ID))
		}},
	}
	for _, s := range steps {
		for _, dropped := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, namespace dropped %v", s.name, dropped), func(t *testing.T) {
				w := newWorld(t)
				w.open()
				p := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}}, PortMapping{"udp", 80, 8080, hostIP})
				s.do(w, p)
				w.open() // the next life
				if dropped {
					p.NetNSFile.Close()
				}
				must(t, w.net.Collect(nil))
				w.wantNothingLeft()
				w.setup(w.pod(p.Ports...)) // and all can be had again
			})
		}
	}
}

// TestDaemonForCrashTest is not a test of its own: it is the process that
// TestKilledAnywhereLeaksNothing kills.
func TestDaemonForCrashTest(t *testing.T) {
	dir := os.Getenv("CRASH_TEST_DIR")
	if dir == "" {
		return
	}
	host := os.NewFile(3, "host")
	w := &world{t: t, host: host, opt: Options{Mode: ModeBuiltin, IPv6: true, StateDir: dir, Instance: "crash"}}
	n := w.open()
	must(t, n.Collect(nil))
	fmt.Println("ready")
	var workers sync.WaitGroup
	for worker := range 3 {
		workers.Go(func() {
			for i := 0; ; i++ {
				ns, err := netns.New()
				if err != nil {
					t.Error(err)
					return
				}
				p := Pod{ID: fmt.Sprintf("w%d-%d", worker, i), NetNSFile: ns,
					Ports: []PortMapping{{"tcp", 80, uint16(9000 + worker), netip.Addr{}}}}
				if _, err := n.Setup(context.Background(), p); err != nil {
					fmt.Println("error", err)
				}
				if err := n.Teardown(context.Background(), p); err != nil {
					fmt.Println("error", err)
				}
				ns.Close()
			}
		})
	}
	workers.Wait()
}

func TestKilledAnywhereLeaksNothing(t *testing.T) {
	w := newWorld(t)
	w.opt.Instance = "crash"
	kills := 25
	if testing.Short() {
		kills = 5
	}
	cut := 0 // pods that were in the middle of something
	for range kills {
		c := exec.Command("/proc/self/exe", "-test.run", "^TestDaemonForCrashTest$")
		c.Env = append(os.Environ(), "CRASH_TEST_DIR="+w.opt.StateDir)
		c.ExtraFiles = []*os.File{w.host}
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "ready" {
			t.Log(lines.Text())
		}
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		must(t, c.Process.Kill())
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Error(lines.Text())
			}
		}
		_ = c.Wait() // killed
		records, err := os.ReadDir(filepath.Join(w.opt.StateDir, "pods"))
		must(t, err)
		cut += len(records)
	}
	if cut == 0 {
		t.Error("no kill hit a pod in the middle: the test proves nothing")
	}
	w.open()
	must(t, w.net.Collect(nil))
	w.wantNothingLeft()
	var names int
	for _, l := range w.links() {
		if strings.HasPrefix(l, "cm") {
			names++
		}
	}
	if names != 1 {
		t.Errorf("links %v; want one bridge, %s", w.links(), bridge.DefaultName("crash"))
	}
}
