package node

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// outputs are the ways a container can talk.
var outputs = []struct {
	name    string
	tty     bool
	streams []string
	args    []string
}{
	{"pipes", false, []string{"stdout", "stderr"}, []string{"-stderr"}},
	{"terminal", true, []string{"stdout"}, nil},
}

// chatty starts a container that does not stop talking by itself.
func (p *pod) chatty(name string, tty bool, args ...string) *container {
	p.d.t.Helper()
	config := containerConfig(name, append([]string{"actor", "lines"}, args...)...)
	config.Tty = tty
	return p.run(config)
}

// flows waits until a log has grown.
func (c *container) flows() {
	c.d.t.Helper()
	since := lastLine(c.log)
	eventually(c.d.t, "the log grows", func() bool { return lastLine(c.log) > since })
}

func TestContainersDoNotNoticeTheDeathOfTheDaemon(t *testing.T) {
	d := ready(t)
	for _, o := range outputs {
		t.Run(o.name, func(t *testing.T) {
			d.enter(t)
			check := d.unchanged()
			p := d.runPod(o.name)
			c := p.chatty("talker", o.tty, append([]string{"-burst", "500", "-pause", "4ms"}, o.args...)...)
			pid, started := c.pid(), c.status().StartedAt
			for range 10 {
				c.flows()
				d.kill()
				c.flows() // with nobody but the monitor
				if !alive(pid) {
					t.Fatal("the container died with the daemon")
				}
				d.serve()
				if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING || s.StartedAt != started || c.pid() != pid {
					t.Fatalf("after the restart: %s, pid %d, started at %d; want running, %d, %d", s.State, c.pid(), s.StartedAt, pid, started)
				}
				if got := c.exec("echo", "again"); got != "again\n" {
					t.Errorf("exec after the restart: %q", got)
				}
			}
			c.flows()
			c.stop(0)
			if s := c.exited(); s.ExitCode != 137 || s.Reason != "Error" {
				t.Errorf("killed container: exit code %d, %s; want 137, Error", s.ExitCode, s.Reason)
			}
			t.Logf("%d lines", complete(t, c.log, o.tty, o.streams...))
			p.remove()
			check()
		})
	}
}

func TestExitWhileTheDaemonIsDeadIsKnownAfterItsRestart(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("exits")
	const lines = 3000
	var exiting []*container
	for i, o := range outputs {
		args := append([]string{"-n", fmt.Sprint(lines), "-exit", fmt.Sprint(42 + i)}, o.args...)
		exiting = append(exiting, p.chatty(o.name, o.tty, args...))
	}
	killed := p.run(containerConfig("killed", "sleep", "1000"))
	pids := []int{exiting[0].pid(), exiting[1].pid()}
	victim := killed.pid()
	d.kill()
	eventually(t, "the containers exit", func() bool { return !alive(pids[0]) && !alive(pids[1]) })
	if err := killProcess(victim); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last one is dead", func() bool { return !alive(victim) })
	dead := time.Now()
	time.Sleep(50 * time.Millisecond)
	d.serve()
	for i, c := range append(exiting, killed) {
		want := []int32{42, 43, 137}[i]
		s := c.status()
		if s.State != criapi.ContainerState_CONTAINER_EXITED || s.ExitCode != want {
			t.Errorf("container %d: %s with %d, want exited with %d", i, s.State, s.ExitCode, want)
		}
		if finished := time.Unix(0, s.FinishedAt); finished.After(dead) || finished.Before(time.Unix(0, s.StartedAt)) {
			t.Errorf("container %d: finished at %s, started at %s, all were dead at %s", i, finished, time.Unix(0, s.StartedAt), dead)
		}
	}
	for i, o := range outputs {
		if n := complete(t, exiting[i].log, o.tty, o.streams...); n != lines {
			t.Errorf("%s: %d lines, want %d", o.name, n, lines)
		}
	}
	p.remove()
	check()
}

func TestContainersCreatedAndStoppedPodsOutliveTheDaemon(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	running, stopped := d.runPod("running"), d.runPod("stopped")
	created := running.create(containerConfig("created", "sh", "-c", "echo started late; exit 7"))
	if _, err := d.StopPodSandbox(d.context(), &criapi.StopPodSandboxRequest{PodSandboxId: stopped.id}); err != nil {
		t.Fatal(err)
	}
	address := podAddress(t, running)
	d.restart()
	if got := podAddress(t, running); got != address || got == "" {
		t.Errorf("address after the restart %q, before %q", got, address)
	}
	if answer, err := d.PodSandboxStatus(d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: stopped.id}); err != nil || answer.Status.State != criapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("stopped pod after the restart: %v, %v", answer, err)
	}
	created.start()
	if s := created.exited(); s.ExitCode != 7 {
		t.Errorf("exit code %d, want 7", s.ExitCode)
	}
	if text := readFile(t, created.log); !strings.Contains(text, "stdout F started late") {
		t.Errorf("log %q", text)
	}
	running.remove()
	stopped.remove()
	check()
}

func podAddress(t *testing.T, p *pod) string {
	t.Helper()
	answer, err := p.d.PodSandboxStatus(p.d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.GetNetwork().GetIp()
}

func killProcess(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}
