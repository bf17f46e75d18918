package node

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testtool"
)

var upgradeCount = flag.Int("upgrades", 10, "how often daemon and monitor are upgraded under load; 100 take some minutes")

// swapBuild has the next daemon be of the other build.
func (d *daemon) swapBuild(build string) {
	if d.other == "" {
		d.other = build
	} else {
		d.other = ""
	}
}

// monitorRuns tells whether the monitor runs the program of the daemon.
func (d *daemon) monitorRuns() bool {
	d.t.Helper()
	a, err := os.Stat(fmt.Sprintf("/proc/%d/exe", d.monitor()))
	if err != nil {
		d.t.Fatal(err)
	}
	b, err := os.Stat(d.program())
	if err != nil {
		d.t.Fatal(err)
	}
	return os.SameFile(a, b)
}

// Daemon and monitor become another build and back, while containers talk and
// end.
func TestContainersDoNotNoticeUpgradesOfDaemonAndMonitor(t *testing.T) {
	d := ready(t)
	build := testtool.OtherBuild(t, d.program())
	check := d.unchanged()
	p := d.runPod("upgrade")
	type talker struct {
		*container
		tty     bool
		streams []string
		pid     int
		started int64
	}
	var talkers []talker
	burst := "20" // every line is looked at, which the race detector makes slow
	if *upgradeCount > 10 {
		burst = "100"
	}
	for i := range 5 {
		o := outputs[i%2]
		c := p.chatty(fmt.Sprint("talker", i), o.tty, append([]string{"-burst", burst, "-pause", "5ms"}, o.args...)...)
		talkers = append(talkers, talker{c, o.tty, o.streams, c.pid(), c.status().StartedAt})
	}
	monitor, most := d.monitor(), 0
	count := (*upgradeCount + 1) / 2 * 2 // back to the first build
	for n := range count {
		ending := p.run(containerConfig(fmt.Sprint("ending", n), "sh", "-c", fmt.Sprintf("sleep %.2f; echo end; exit %d", 0.02*float64(n%10), 1+n%100)))
		began := time.Now()
		d.kill()
		d.swapBuild(build)
		d.serve()
		took := time.Since(began)
		if now := d.monitor(); now != monitor || !d.monitorRuns() {
			t.Fatalf("upgrade %d: the monitor is process %d, was %d; it runs the new program: %t", n, now, monitor, d.monitorRuns())
		}
		for i, c := range talkers {
			if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING || s.StartedAt != c.started || c.container.pid() != c.pid || !alive(c.pid) {
				t.Fatalf("upgrade %d: container %d is %s, process %d, started at %d; want running, %d, %d", n, i, s.State, c.container.pid(), s.StartedAt, c.pid, c.started)
			}
		}
		talkers[n%len(talkers)].flows()
		if s := ending.exited(); s.ExitCode != int32(1+n%100) {
			t.Errorf("upgrade %d: exit code %d (%s), want %d", n, s.ExitCode, s.Reason, 1+n%100)
		}
		if log := readLog(t, ending.log); len(log) != 1 || log[0].text != "end" {
			t.Errorf("upgrade %d: log of what ended meanwhile: %q", n, log)
		}
		if _, err := d.RemoveContainer(d.context(), &criapi.RemoveContainerRequest{ContainerId: ending.id}); err != nil {
			t.Error(err)
		}
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", monitor))
		if err != nil {
			t.Fatal(err)
		}
		if n < 2 {
			most = max(most, len(open)+4) // connections that are kept
		} else if len(open) > most {
			t.Errorf("upgrade %d: the monitor has %d descriptors, at first had at most %d", n, len(open), most)
		}
		if n == 0 {
			t.Logf("one upgrade of both takes %s until the daemon answers", took)
		}
	}
	lines := 0
	for _, c := range talkers {
		c.stop(0)
		if s := c.exited(); s.ExitCode != 137 {
			t.Errorf("killed container: exit code %d, want 137", s.ExitCode)
		}
		lines += complete(t, c.log, c.tty, c.streams...)
	}
	t.Logf("%d upgrades, %d lines of %d containers, none missing, torn or doubled; the monitor is process %d from first to last", count, lines, len(talkers), monitor)
	p.remove()
	check()
}
