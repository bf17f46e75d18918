package node

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestLimitOfMemoryIsSaidToHaveKilledWhoeverWasDead has the kernel kill a container
// while daemon or monitor or both cannot see it.
func TestLimitOfMemoryIsSaidToHaveKilledWhoeverWasDead(t *testing.T) {
	needController(t, "memory")
	d := ready(t)
	for _, dead := range []struct {
		name string
		die  func(monitor int)
		rise func()
	}{
		{"daemon", func(int) { d.kill() }, d.serve},
		{"monitor", func(monitor int) {
			d.stopped()
			endMonitor(t, monitor)
		}, func() { d.process.Process.Signal(syscall.SIGCONT) }},
		{"both", func(monitor int) {
			d.kill()
			endMonitor(t, monitor)
		}, d.serve},
	} {
		t.Run(dead.name, func(t *testing.T) {
			d.enter(t)
			p := d.runPod(dead.name)
			signs := t.TempDir()
			config := limited("eater", &criapi.LinuxContainerResources{MemoryLimitInBytes: 32 * mib, MemorySwapLimitInBytes: 32 * mib},
				"sh", "-c", "until test -e /signs/eat; do sleep 0.1; done; exec actor eat 200 0s")
			config.Mounts = []*criapi.Mount{{ContainerPath: "/signs", HostPath: signs}}
			c := p.run(config)
			pid, monitor := c.pid(), d.monitor()
			dead.die(monitor)
			if err := os.WriteFile(filepath.Join(signs, "eat"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the kernel has killed", func() bool { return !alive(pid) })
			dead.rise()
			s := c.exited()
			t.Logf("exit code %d, %s %s", s.ExitCode, s.Reason, s.Message)
			// Of a process that is not its child a monitor learns the code from
			// Linux 6.15 on, and nobody does when both were dead.
			if s.Reason != "OOMKilled" || s.ExitCode != 137 && (dead.name == "daemon" || s.ExitCode != 255) {
				t.Errorf("exit code %d, reason %q; want 137, OOMKilled", s.ExitCode, s.Reason)
			}
			if dead.name == "monitor" {
				eventually(t, "another monitor", func() bool { m := d.monitor(); return m != 0 && m != monitor })
			}
			p.remove()
			d.wholeLife("after-" + dead.name)
		})
	}
}

// stopped has the daemon see nothing until it is told to go on.
func (d *daemon) stopped() {
	d.t.Helper()
	if err := d.process.Process.Signal(syscall.SIGSTOP); err != nil {
		d.t.Fatal(err)
	}
}

func endMonitor(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill monitor %d: %v", pid, err)
	}
	eventually(t, "the monitor is dead", func() bool { return !alive(pid) })
}
