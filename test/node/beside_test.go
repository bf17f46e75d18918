package node

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// beside is what runs and talks beside a test that kills processes of the
// node, and must not notice.
type beside struct {
	d       *daemon
	pods    []*pod
	address string // of the first pod
	all     []*bystander

	// Of the log lines of all that were here: those seen, those that killed
	// monitors lost, and pieces of lines that they left.
	lines, missing, torn int
}

// bystander is one container, and how far its log has been read.
type bystander struct {
	*container
	pid     int
	tty     bool
	streams []string // none: it is silent
	offset  int64
	next    map[string]int
}

// besidePort is the host port that is taken.
const besidePort = 18080

// startBeside starts two pods: one whose containers talk, by pipes and on a
// terminal, and one with a shared PID namespace, and so an init.
func (d *daemon) startBeside() *beside {
	d.t.Helper()
	b := &beside{d: d}
	talking := d.runPod("beside", func(c *criapi.PodSandboxConfig) {
		c.PortMappings = []*criapi.PortMapping{{HostPort: besidePort, ContainerPort: 80}}
	})
	shared := d.runPod("beside-shared", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	})
	b.pods, b.address = []*pod{talking, shared}, podAddress(d.t, talking)
	for _, o := range outputs {
		c := talking.chatty(o.name, o.tty, append([]string{"-burst", "5", "-pause", "5ms"}, o.args...)...)
		b.all = append(b.all, &bystander{container: c, tty: o.tty, streams: o.streams, next: map[string]int{}})
	}
	silent := containerConfig("silent", "sh", "-c", "busybox mkfifo /tmp/never; exec 3<>/tmp/never; until test -e /tmp/end; do read -t 0.1 line <&3; done; exit 43") // no child that comes and goes
	joined := containerConfig("joined", "sleep", "1000")
	joined.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	b.all = append(b.all, &bystander{container: talking.run(silent)}, &bystander{container: shared.run(joined)})
	for _, c := range b.all {
		c.pid = c.container.pid()
	}
	return b
}

// unharmed fails the test when anybody has noticed something, but for what
// killed monitors may lose of a log.
func (b *beside) unharmed(monitors int) {
	t := b.d.t
	t.Helper()
	for _, c := range b.all {
		if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING || !alive(c.pid) || c.container.pid() != c.pid {
			t.Fatalf("bystander %s is %s (exit code %d, %s %s), its process %d lives: %t", s.Metadata.Name, s.State, s.ExitCode, s.Reason, s.Message, c.pid, alive(c.pid))
		}
	}
	for _, p := range b.pods {
		answer, err := b.d.PodSandboxStatus(b.d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id})
		if err != nil || answer.Status.State != criapi.PodSandboxState_SANDBOX_READY {
			t.Fatalf("pod %s: %v, %v; want ready", p.config.Metadata.Name, answer, err)
		}
	}
	if got := podAddress(t, b.pods[0]); got != b.address {
		t.Errorf("address %q, want %q", got, b.address)
	}
	for _, c := range b.all {
		if len(c.streams) > 0 {
			c.flows()
			b.read(c, c.file(), monitors)
		}
	}
}

// renamed is the log while it is being rotated.
func (c *bystander) renamed() string { return c.log + ".1" }

// file is where the log is read on: a renamed one first, to its end.
func (c *bystander) file() string {
	if _, err := os.Lstat(c.renamed()); err == nil {
		return c.renamed()
	}
	return c.log
}

// flows waits until the log has grown, before or behind its rotation.
func (c *bystander) flows() {
	c.d.t.Helper()
	last := func() int { return max(lastLine(c.log), lastLine(c.renamed())) }
	since := last()
	eventually(c.d.t, "the log of a bystander grows", func() bool { return last() > since })
}

// read goes through what a log has got since the last time.
func (b *beside) read(c *bystander, path string, monitors int) {
	t := b.d.t
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, c.offset, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	whole := string(text[:strings.LastIndexByte(string(text), '\n')+1])
	c.offset += int64(len(whole))
	records := parseLog(t, path, whole)
	for _, stream := range c.streams {
		numbers, torn := numbered(records, stream)
		missing := 0
		for _, n := range numbers {
			if n <= c.next[stream] {
				t.Errorf("%s of %s: line %d again or late", stream, path, n)
				continue
			}
			missing += n - c.next[stream] - 1
			c.next[stream] = n
		}
		if most := monitors * (oneRead/lineLength + 2); missing > most || len(torn) > monitors {
			t.Errorf("%s of %s: %d lines missing before line %d and %d torn after the death of %d monitors: %q", stream, path, missing, c.next[stream], len(torn), monitors, torn)
		}
		b.lines, b.missing, b.torn = b.lines+len(numbers), b.missing+missing, b.torn+len(torn)
	}
}

// rotate renames the log of the first talker, once, and has it go on in a new
// one.
func (b *beside) rotate(reopen func(id string) error, monitors func() int) error {
	c := b.all[0]
	old := c.renamed()
	if _, err := os.Lstat(old); os.IsNotExist(err) {
		if err := os.Rename(c.log, old); err != nil {
			return err
		}
	}
	if err := reopen(c.id); err != nil {
		return err
	}
	b.read(c, old, monitors())
	if text := readFile(b.d.t, old); int64(len(text)) != c.offset {
		b.d.t.Errorf("the log that was renamed ends in the middle of a line: %q", text[c.offset:])
	}
	c.offset = 0
	return os.Remove(old)
}

// accounted checks that all that was lost is told to be: it is what is left when
// nobody held pipes and namespaces any more. It tells whether something was.
func (b *beside) accounted() (lost bool) {
	t := b.d.t
	t.Helper()
	for _, c := range b.all {
		// A stop of what lost its namespaces may be under way.
		runs := true
		eventually(t, "the state of a bystander is that of its process", func() bool {
			runs = c.status().State == criapi.ContainerState_CONTAINER_RUNNING
			return runs == alive(c.pid)
		})
		lost = lost || !runs
	}
	return lost
}

// end ends and removes all. Those that may still tell their exit code must do so.
func (b *beside) end(whole bool) {
	t := b.d.t
	t.Helper()
	if whole {
		b.all[2].exec("touch", "/tmp/end")
		if s := b.all[2].exited(); s.ExitCode != 43 {
			t.Errorf("exit code of a bystander: %d (%s), want 43", s.ExitCode, s.Reason)
		}
		for _, i := range []int{0, 1, 3} {
			b.all[i].stop(0)
			if s := b.all[i].exited(); s.ExitCode != 137 {
				t.Errorf("exit code of a bystander that was killed: %d (%s), want 137", s.ExitCode, s.Reason)
			}
		}
	}
	for _, p := range b.pods {
		p.remove()
	}
	for _, c := range b.all {
		if _, err := b.d.ContainerStatus(b.d.context(), &criapi.ContainerStatusRequest{ContainerId: c.id}); status.Code(err) != codes.NotFound {
			t.Errorf("status of a bystander that was removed: %v", err)
		}
		if err := syscall.Kill(c.pid, 0); err == nil && alive(c.pid) {
			t.Errorf("process %d of a bystander that was removed still runs", c.pid)
		}
		os.Remove(c.log)
		os.Remove(c.renamed())
	}
}

func (b *beside) String() string {
	return fmt.Sprintf("%d lines of bystanders, of which killed monitors lost %d and tore %d", b.lines+b.missing, b.missing, b.torn)
}
