package node

import (
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a dead monitor had taken out of a pipe and not yet written is lost: at
// most one read of each stream, and the beginning of a line whose end the next
// monitor then takes for all of it. Nothing else is.
const (
	lineLength = 68
	oneRead    = 64 << 10
)

func TestContainersOutliveTheMonitor(t *testing.T) {
	d := ready(t)
	for _, o := range outputs {
		t.Run(o.name, func(t *testing.T) {
			d.enter(t)
			check := d.unchanged()
			p := d.runPod(o.name)
			// More than a pipe holds at once: the monitor is always at work.
			c := p.chatty("talker", o.tty, append([]string{"-burst", "2000", "-pause", "4ms"}, o.args...)...)
			silent := p.run(containerConfig("silent", "sh", "-c", "while ! test -e /tmp/end; do sleep 0.01; done; exit 43"))
			pid := c.pid()
			const kills = 5
			for range kills {
				c.flows()
				d.killMonitor()
				c.flows()
				if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING || c.pid() != pid || !alive(pid) {
					t.Fatalf("after the death of the monitor: %s, pid %d, want running with %d", s.State, c.pid(), pid)
				}
			}
			silent.exec("touch", "/tmp/end")
			if s := silent.exited(); s.ExitCode != 43 {
				t.Errorf("exit code under a monitor that adopted: %d (%s), want 43", s.ExitCode, s.Reason)
			}
			c.stop(0)
			if s := c.exited(); s.ExitCode != 137 {
				t.Errorf("exit code of a killed container under a monitor that adopted: %d (%s), want 137", s.ExitCode, s.Reason)
			}
			records := readLog(t, c.log)
			for _, stream := range o.streams {
				numbers, torn := numbered(records, stream)
				missing, report := gaps(numbers)
				t.Logf("%s: %d lines, %d missing, %d torn by %d kills: %s", stream, len(numbers), missing, len(torn), kills, report)
				if most := kills * (oneRead/lineLength + 2); missing > most || strings.Contains(report, "again") {
					t.Errorf("%s: %d lines missing after %d kills, %s; at most %d can be explained", stream, missing, kills, report, most)
				}
				// One more may be where the container itself was killed.
				if len(torn) > kills+1 {
					t.Errorf("%s: %d torn lines after %d kills: %q", stream, len(torn), kills, torn)
				}
			}
			p.remove()
			check()
		})
	}
}

func TestExitWhileTheMonitorIsDeadIsKnown(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("exits")
	var all []*container
	for _, name := range []string{"a", "b", "c", "d"} {
		all = append(all, p.run(containerConfig(name, "sleep", "1000")))
	}
	// The new monitor comes within milliseconds: some of these end before.
	monitor := d.monitor()
	if err := killProcess(monitor); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if err := killProcess(c.pid()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range all {
		if s := c.exited(); s.ExitCode != 137 {
			t.Errorf("exit code %d (%s: %s), want 137", s.ExitCode, s.Reason, s.Message)
		}
	}
	p.remove()
	check()
}

// With both gone nobody holds pipes and namespaces. That is the end of what
// ran; what remains is to say so, and to leave nothing.
func TestNodeComesBackFromTheDeathOfDaemonAndMonitor(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("both")
	silent, ended := p.run(containerConfig("silent", "sleep", "1000")), p.run(containerConfig("ended", "sh", "-c", "exit 44"))
	talker := p.chatty("talker", false)
	ended.exited()
	pids := []int{silent.pid(), talker.pid()}
	monitor := d.monitor()
	d.kill()
	if err := killProcess(monitor); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the monitor is dead", func() bool { return !alive(monitor) })
	d.serve()
	for i, c := range []*container{silent, talker} {
		s := c.status()
		t.Logf("%d: %s, exit code %d, %s %s", i, s.State, s.ExitCode, s.Reason, s.Message)
		if (s.State == criapi.ContainerState_CONTAINER_RUNNING) != alive(pids[i]) {
			t.Errorf("container %d is %s, and its process lives: %v", i, s.State, alive(pids[i]))
		}
	}
	if s := ended.status(); s.ExitCode != 44 {
		t.Errorf("exit code from before: %d, want 44", s.ExitCode)
	}
	if answer, err := d.PodSandboxStatus(d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id}); err != nil || answer.Status.State != criapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("pod without namespaces: %v, %v; want not ready", answer, err)
	}
	p.remove()
	check()
}
