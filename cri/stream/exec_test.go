package stream

import (
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const v4 = "v4.channel.k8s.io"

func execURL(t *testing.T, s *Server, r *criapi.ExecRequest) string {
	t.Helper()
	r.ContainerId = "c"
	answer, err := s.Exec(r)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Url
}

func TestExecCarriesStreamsHalfCloseAndExitCode(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{
		Cmd: []string{"sh", "-c", "cat; echo to stderr >&2; exit 3"}, Stdin: true, Stdout: true, Stderr: true,
	}), v4)
	status := c.stream("streamType", "error")
	in, out, errOut := c.stream("streamType", "stdin"), c.stream("streamType", "stdout"), c.stream("streamType", "stderr")
	for range 100 {
		if _, err := io.WriteString(in, strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	in.Close() // cat ends only if this reaches it
	if got := text(t, out); len(got) != 100*1000 {
		t.Errorf("stdout has %d bytes, want 100000", len(got))
	}
	if got := text(t, errOut); got != "to stderr\n" {
		t.Errorf("stderr %q", got)
	}
	if got := text(t, status); !strings.Contains(got, `"reason":"ExitCode","message":"3"`) {
		t.Errorf("status %s, want exit code 3", got)
	}
}

func TestExecAnswersSuccessAndStartErrors(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	for command, want := range map[string]string{
		"true":                 `"status":"Success"`,
		"/no such program":     "no such file",
		"kill -9 $$; sleep 10": `"message":"-1"`, // os/exec's word for a signal
	} {
		args := []string{"sh", "-c", command}
		if strings.HasPrefix(command, "/") {
			args = []string{command}
		}
		c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: args, Stdout: true}), v4)
		status := c.stream("streamType", "error")
		c.stream("streamType", "stdout")
		if got := text(t, status); !strings.Contains(got, want) {
			t.Errorf("%s: status %s, want %s", command, got, want)
		}
	}
}

func TestExecDoesNotWaitForProgramsLeftInTheBackground(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sh", "-c", "sleep 20 & echo $!"}, Stdout: true}), v4)
	status := c.stream("streamType", "error")
	out := c.stream("streamType", "stdout")
	start := time.Now()
	if got := text(t, status); !strings.Contains(got, "Success") {
		t.Errorf("status %s", got)
	}
	if took := time.Since(start); took > 2*quiet+time.Second {
		t.Errorf("exec ended after %v, want at most %v", took, 2*quiet+time.Second)
	}
	pid := 0
	for _, digit := range strings.TrimSpace(text(t, out)) {
		pid = pid*10 + int(digit-'0')
	}
	if pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestExecDiesWithItsClient(t *testing.T) {
	noGoroutines(t)
	for name, leave := range map[string]func(c *client, in io.Writer){
		"connection closed": func(c *client, _ io.Writer) { c.raw.Close() },
		"streams reset":     func(c *client, _ io.Writer) { c.conn.Close() },
		"connection closed while nobody reads it": func(c *client, in io.Writer) {
			go in.Write(make([]byte, 10<<20)) // more than the program takes and queues hold
			time.Sleep(200 * time.Millisecond)
			c.raw.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			s := serve(t, m)
			c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdin: true, Stdout: true}), v4)
			c.stream("streamType", "error")
			c.stream("streamType", "stdout")
			in := c.stream("streamType", "stdin")
			pid := <-m.started
			leave(c, in)
			eventually(t, "the program is dead", func() bool { return syscall.Kill(pid, 0) != nil })
		})
	}
}

// An empty error stream would mean that the program did well.
func TestClientsHearThatTheServerEnds(t *testing.T) {
	noGoroutines(t)
	for _, protocol := range []string{v4, "v3.channel.k8s.io"} {
		m := newMachine()
		s := serveAs(t, m, Config{Address: "127.0.0.1:0"}, func(l *limits) { l.parting = 5 * time.Second })
		executing := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdout: true}), protocol)
		told := []io.Reader{executing.stream("streamType", "error")}
		executing.stream("streamType", "stdout")
		pid := <-m.started
		answer, err := s.Attach(&criapi.AttachRequest{ContainerId: "c", Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		attached := dialURL(t, answer.Url, protocol)
		told = append(told, attached.stream("streamType", "error"))
		attached.stream("streamType", "stdout")
		<-m.views
		socket := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdout: true}), v5)
		socket.read()
		<-m.started
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		for _, stream := range told {
			if got := text(t, stream); !strings.Contains(got, errEnding.Error()) {
				t.Errorf("%s: the client hears %q", protocol, got)
			}
		}
		socket.wait()
		if got := socket.got(errorChannel); !strings.Contains(got, errEnding.Error()) {
			t.Errorf("the client of a WebSocket hears %q", got)
		}
		executing.conn.Close()
		attached.conn.Close()
		socket.ws.Close()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		eventually(t, "the program is dead", func() bool { return syscall.Kill(pid, 0) != nil })
	}
}

func TestTerminalSizesReachTheProgram(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	s := serve(t, m)
	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sh", "-c", "sleep 0.5; echo more"}, Stdin: true, Stdout: true, Tty: true}), v4)
	status := c.stream("streamType", "error")
	in := c.stream("streamType", "stdin")
	out := c.stream("streamType", "stdout")
	size := c.stream("streamType", "resize")
	io.WriteString(size, `{"Width":120,"Height":40}`)
	if got := <-m.sizes; got != "120x40" {
		t.Errorf("size %s, want 120x40", got)
	}
	// The half close of the client must not hang up the terminal: "more" comes
	// after it.
	in.Close()
	if got := text(t, out); got != "more\n" {
		t.Errorf("after the end of stdin the terminal says %q, want more", got)
	}
	text(t, status)
}

func TestURLServesOneConnectionOnly(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	url := execURL(t, s, &criapi.ExecRequest{Cmd: []string{"true"}, Stdout: true})
	c := dialURL(t, url, v4)
	status := c.stream("streamType", "error")
	c.stream("streamType", "stdout")
	text(t, status)
	for _, used := range []string{url, "http://" + s.Address() + "/exec/AAAAAAAA"} {
		if c, code := tryURL(t, used, v4); c != nil || code != 404 {
			t.Errorf("%s answered %d, want 404", used, code)
		}
	}
}

func TestAttachEndsWithTheContainerAndPassesHalfClose(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	s := serve(t, m)
	answer, err := s.Attach(&criapi.AttachRequest{ContainerId: "c", Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	c := dialURL(t, answer.Url, v4)
	status := c.stream("streamType", "error")
	in, out := c.stream("streamType", "stdin"), c.stream("streamType", "stdout")
	v := <-m.views
	io.WriteString(in, "hello")
	in.Close()
	<-v.stdinEnded
	v.end()
	if got := text(t, out); got != "hello" {
		t.Errorf("stdout %q, want hello", got)
	}
	if got := text(t, status); !strings.Contains(got, "Success") {
		t.Errorf("status %s", got)
	}
}

func TestAThousandAbandonedAttachesLeaveNothing(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	s := serve(t, m)
	for i := range 1000 {
		answer, err := s.Attach(&criapi.AttachRequest{ContainerId: "c", Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		c := dialURL(t, answer.Url, v4)
		c.stream("streamType", "error")
		c.stream("streamType", "stdin")
		if i%2 == 0 { // else the client leaves before its streams are complete
			c.stream("streamType", "stdout")
			<-m.views
		}
		c.raw.Close()
	}
	eventually(t, "nothing is attached", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.attached == 0
	})
}
