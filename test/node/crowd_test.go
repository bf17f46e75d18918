package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var crowdSize = flag.Int("crowd", 60, "how many pods run in the test of a crowd while daemon and monitor are killed; of 500 and more the first list has to come within a second")

// crowd is many pods that write logs and answer probes.
type crowd struct {
	d       *daemon
	ids     []string
	members []*member
}

// member is a pod's one container.
type member struct {
	*container
	pod, address string
}

const crowdPort = 8080

func (d *daemon) startCrowd(n int) *crowd {
	d.t.Helper()
	c := &crowd{d: d}
	names := make([]*criapi.PodSandboxConfig, n)
	var err error
	if c.ids, err = d.up(n, func(i int, p *criapi.PodSandboxConfig, c *criapi.ContainerConfig) {
		names[i] = p
		c.Command = []string{"actor", "lines", "-burst", "1", "-pause", "300ms", "-listen", fmt.Sprint(crowdPort)}
	}); err != nil {
		d.t.Fatal(err)
	}
	list, err := d.ListContainers(d.context(), &criapi.ListContainersRequest{})
	if err != nil || len(list.Containers) != n {
		d.t.Fatalf("%d containers, %v; want %d", len(list.GetContainers()), err, n)
	}
	for _, one := range list.Containers {
		i := slices.Index(c.ids, one.PodSandboxId)
		address := podAddress(d.t, &pod{d, c.ids[i], names[i]})
		c.members = append(c.members, &member{&container{d, one.Id, filepath.Join(names[i].LogDirectory, "c.log")}, c.ids[i], address})
	}
	c.flows()
	return c
}

// flows waits until every log has grown.
func (c *crowd) flows() {
	c.d.t.Helper()
	since := make([]int, len(c.members))
	for i, m := range c.members {
		since[i] = lastLine(m.log)
	}
	eventually(c.d.t, "every log of the crowd grows", func() bool {
		for i, m := range c.members {
			if lastLine(m.log) <= since[i] {
				return false
			}
		}
		return true
	})
}

// facts is what may not change, of each pod.
func (c *crowd) facts() map[string]string {
	c.d.t.Helper()
	facts := map[string]string{}
	for _, m := range c.members {
		s := m.status()
		facts[m.id] = fmt.Sprintf("%s, attempt %d, started at %d, pid %d", s.State, s.Metadata.Attempt, s.StartedAt, m.pid())
		answer, err := c.d.PodSandboxStatus(c.d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: m.pod})
		if err != nil {
			c.d.t.Fatal(err)
		}
		facts[m.pod] = fmt.Sprintf("%s, attempt %d, created at %d, %s", answer.Status.State, answer.Status.Metadata.Attempt, answer.Status.CreatedAt, answer.Status.GetNetwork().GetIp())
	}
	return facts
}

// listed times how long it takes until all are listed. A list that is answered is
// complete, or the kubelet would start anew what it does not see. Queued is how
// long the processes had waited for a processor before.
func (c *crowd) listed(since time.Time, queued time.Duration) {
	t := c.d.t
	t.Helper()
	pods, err := c.d.ListPodSandbox(c.d.context(), &criapi.ListPodSandboxRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	containers, err := c.d.ListContainers(c.d.context(), &criapi.ListContainersRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(since)
	ready, running := 0, 0
	for _, p := range pods.Items {
		if p.State == criapi.PodSandboxState_SANDBOX_READY {
			ready++
		}
	}
	for _, c := range containers.Containers {
		if c.State == criapi.ContainerState_CONTAINER_RUNNING {
			running++
		}
	}
	if ready != len(c.ids) || running != len(c.ids) {
		t.Errorf("listed are %d pods, %d of them ready, and %d containers, %d of them running; want %d", len(pods.Items), ready, len(containers.Containers), running, len(c.ids))
	}
	// On a machine with other things to do all wait for a processor.
	waited := waitedToRun(t, c.d.pid()) + waitedToRun(t, c.d.monitor()) - queued
	t.Logf("%d pods are listed after %s, of which the threads of daemon and monitor waited %s for a processor", len(c.ids), took.Round(time.Millisecond), waited.Round(time.Millisecond))
	if len(c.ids) >= 500 && took-waited > time.Second {
		t.Errorf("%d pods are listed after %s, of which %s is waiting for a processor", len(c.ids), took, waited)
	}
}

// waitedToRun is how long all threads of a process together could have run and
// had no processor.
func waitedToRun(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range threads {
		var ran, waited int64
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has just ended
		}
		if _, err2 := fmt.Sscan(string(text), &ran, &waited); err != nil || err2 != nil {
			t.Fatalf("%s: %q, %v, %v", name, text, err, err2)
		}
		sum += time.Duration(waited)
	}
	return sum
}

// logs reads all logs: what is missing is at most what killed monitors had in
// their hands.
func (c *crowd) logs(monitors int) {
	t := c.d.t
	t.Helper()
	lines, lost, torn := 0, 0, 0
	var longest time.Duration
	for _, m := range c.members {
		text := readFile(t, m.log)
		text = text[:strings.LastIndexByte(text, '\n')+1]
		numbers, broken := numbered(parseLog(t, m.log, text), "stdout")
		missing, report := gaps(numbers)
		if missing > monitors*(oneRead/lineLength+2) || len(broken) > monitors || strings.Contains(report, "again") {
			t.Errorf("%s: %s; torn: %q; %d monitors were killed", m.log, report, broken, monitors)
		}
		lines, lost, torn, longest = lines+len(numbers), lost+missing, torn+len(broken), max(longest, longestPause(text))
	}
	t.Logf("%d lines in %d logs, %d missing, %d torn; the longest pause between two is %s", lines, len(c.members), lost, torn, longest.Round(time.Millisecond))
}

func longestPause(log string) (longest time.Duration) {
	var last time.Time
	for line := range strings.Lines(log) {
		stamp, _, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			continue // said by parseLog
		}
		if !last.IsZero() {
			longest = max(longest, at.Sub(last))
		}
		last = at
	}
	return longest
}

// prober asks the members again and again, as a kubelet does.
type prober struct {
	c       *crowd
	over    chan struct{}
	running sync.WaitGroup

	execs, unavailable, requests atomic.Int64
	slowest                      atomic.Int64 // request over HTTP, in ns

	// kills counts their beginnings and ends: while it is odd, or when it
	// changed, an exec may have met one.
	kills atomic.Int64
}

const probers = 4 // of each kind

func (c *crowd) probe() *prober {
	p := &prober{c: c, over: make(chan struct{})}
	for i := range probers {
		for _, probe := range []func(*member){p.exec, p.request} {
			p.running.Go(func() {
				for n := i; ; n += probers {
					select {
					case <-p.over:
						return
					case <-time.After(10 * time.Millisecond):
						probe(c.members[n%len(c.members)])
					}
				}
			})
		}
	}
	return p
}

func (p *prober) exec(m *member) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before := p.kills.Load()
	answer, err := m.d.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: m.id, Cmd: []string{"true"}, Timeout: 30})
	after := p.kills.Load()
	switch {
	case err == nil && answer.ExitCode == 0:
		p.execs.Add(1)
	case status.Code(err) == codes.Unavailable && (before%2 != 0 || before != after):
		p.unavailable.Add(1)
	default:
		m.d.t.Errorf("probe by exec: exit code %d, %v; during a kill: %t", answer.GetExitCode(), err, before%2 != 0 || before != after)
	}
}

func (p *prober) request(m *member) {
	begun := time.Now()
	if err := ask(m.address); err != nil {
		m.d.t.Errorf("probe by HTTP of %s: %v", m.address, err)
		return
	}
	p.requests.Add(1)
	for took := int64(time.Since(begun)); ; {
		if most := p.slowest.Load(); took <= most || p.slowest.CompareAndSwap(most, took) {
			return
		}
	}
}

func ask(address string) error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, fmt.Sprint(crowdPort)), patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.0 200 OK") {
		err = fmt.Errorf("answer %q", answer)
	}
	return err
}

// meets has the probes meet a kill, and waits until they succeed again.
func (p *prober) meets(kill func()) {
	p.c.d.t.Helper()
	p.kills.Add(1)
	kill()
	p.kills.Add(1)
	execs, requests := p.execs.Load(), p.requests.Load()
	eventually(p.c.d.t, "probes succeed", func() bool {
		return p.execs.Load() > execs+2*probers && p.requests.Load() > requests+2*probers
	})
}

func (p *prober) end() {
	close(p.over)
	p.running.Wait()
	p.c.d.t.Logf("%d probes by exec, besides %d that no daemon answered; %d by HTTP, the slowest %s", p.execs.Load(), p.unavailable.Load(), p.requests.Load(),
		time.Duration(p.slowest.Load()).Round(time.Millisecond))
}

// TestCrowdDoesNotNoticeTheDeathOfDaemonAndMonitor kills each under many pods,
// and the daemon once more when the monitor is one that adopted all of them.
func TestCrowdDoesNotNoticeTheDeathOfDaemonAndMonitor(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	c := d.startCrowd(*crowdSize)
	before := c.facts()
	monitors := 0
	daemon := func() {
		d.kill()
		c.flows() // with nobody but the monitor
		begun, queued := time.Now(), waitedToRun(t, d.monitor())
		d.launch()
		c.listed(begun, queued)
	}
	monitor := func() {
		old, next := d.monitor(), d.nextMonitor()
		begun, queued := time.Now(), waitedToRun(t, d.pid())
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		monitors++
		c.listed(begun, queued)
		eventually(t, "a new monitor", next)
		t.Logf("another monitor has taken over after %s", time.Since(begun).Round(time.Millisecond))
		c.flows()
	}
	probes := c.probe()
	for _, kill := range []struct {
		who string
		do  func()
	}{{"daemon", daemon}, {"monitor", monitor}, {"daemon", daemon}} {
		t.Logf("the %s is killed", kill.who)
		probes.meets(kill.do)
		c.logs(monitors)
		after := c.facts()
		for id, fact := range before {
			if after[id] != fact {
				t.Errorf("%s was %s, is %s", id, fact, after[id])
			}
		}
	}
	probes.end()
	if err := d.down(c.ids); err != nil {
		t.Fatal(err)
	}
	check()
}
