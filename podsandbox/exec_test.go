package podsandbox

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// execIn runs do with a running container that can exec the programs.
func execIn(t *testing.T, programs map[string]*fakeExecution, do func(*testing.T, *Container)) {
	inBubble(t, func(t *testing.T, l *life) {
		l.world.programs = programs
		for _, step := range []string{"run a", "create a/web", "start a/web"} {
			l.do(strings.Fields(step))
		}
		c, err := l.pods.Container(l.id("a/web"))
		if err != nil {
			t.Fatal(err)
		}
		do(t, c)
	})
}

func TestExecSyncGivesBothOutputsAndTheCode(t *testing.T) {
	program := &fakeExecution{stdout: []byte("out"), stderr: []byte("err"), code: 3, takes: time.Second}
	execIn(t, map[string]*fakeExecution{"sh": program}, func(t *testing.T, c *Container) {
		stdout, stderr, code, err := c.ExecSync(t.Context(), []string{"sh", "-c", "x"}, 0)
		if err != nil || string(stdout) != "out" || string(stderr) != "err" || code != 3 {
			t.Errorf("ExecSync gives %q, %q, %d, %v; want out, err, 3", stdout, stderr, code, err)
		}
		p := program.process
		if strings.Join(p.Args, " ") != "sh -c x" || p.User.UID != 33 || p.Terminal || p.OOMScoreAdj == nil {
			t.Errorf("the process is %+v, want the container's user and score", p)
		}
	})
}

func TestExecSyncKeepsWhatFitsIntoOneAnswer(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20+1000)
	execIn(t, map[string]*fakeExecution{"yes": {stdout: big, stderr: big}}, func(t *testing.T, c *Container) {
		stdout, stderr, _, err := c.ExecSync(t.Context(), []string{"yes"}, 0)
		const answer = 16 << 20 // with what else is in it
		if n := len(stdout) + len(stderr); err != nil || n >= answer-100 || n < answer-100_000 || len(stdout) != len(stderr) || !bytes.HasPrefix(big, stdout) {
			t.Errorf("kept %d and %d bytes, %v; want the beginning of each, together a little less than %d", len(stdout), len(stderr), err, answer)
		}
	})
}

func TestExecSyncDoesNotWaitForWhatTheProgramLeftRunning(t *testing.T) {
	execIn(t, map[string]*fakeExecution{"sh": {stdout: []byte("x"), keepsOutput: true}}, func(t *testing.T, c *Container) {
		began := time.Now()
		stdout, _, _, err := c.ExecSync(t.Context(), []string{"sh"}, 0)
		if took := time.Since(began); err != nil || took != drainTime || string(stdout) != "x" {
			t.Errorf("ExecSync took %s and gave %q, %v; want %s and x", took, stdout, err, drainTime)
		}
	})
}

func TestExecSyncKillsAtTheTimeout(t *testing.T) {
	program := &fakeExecution{takes: time.Hour, keepsOutput: true}
	execIn(t, map[string]*fakeExecution{"sleep": program}, func(t *testing.T, c *Container) {
		began := time.Now()
		_, _, _, err := c.ExecSync(t.Context(), []string{"sleep"}, 2*time.Second)
		if took := time.Since(began); !errors.Is(err, ErrTimeout) || took != 2*time.Second {
			t.Errorf("after %s: %v; want ErrTimeout after 2s", took, err)
		}
		if !strings.Contains(err.Error(), "timed out after 2s") {
			t.Errorf("%v does not say after how long", err)
		}
		select {
		case <-program.killed:
		default:
			t.Error("the process lives on")
		}
	})
}

func TestExecSyncKillsWhenTheCallerLeaves(t *testing.T) {
	program := &fakeExecution{takes: time.Hour}
	execIn(t, map[string]*fakeExecution{"sleep": program}, func(t *testing.T, c *Container) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, _, err := c.ExecSync(ctx, []string{"sleep"}, 0)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrTimeout) {
			t.Errorf("got %v, want the caller's own deadline", err)
		}
		select {
		case <-program.killed:
		default:
			t.Error("the process lives on")
		}
	})
}

func TestExecNeedsARunningContainerAndAProgram(t *testing.T) {
	execIn(t, nil, func(t *testing.T, c *Container) {
		if _, err := c.Exec(t.Context(), nil, false, ExecIO{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("exec of nothing: %v, want ErrInvalid", err)
		}
		if _, err := c.Exec(t.Context(), []string{"missing"}, false, ExecIO{}); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("exec of a missing program: %v, want its name", err)
		}
		if err := c.ReopenLog(t.Context()); err != nil {
			t.Errorf("reopen: %v", err)
		}
		if err := c.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		_, _, _, execErr := c.ExecSync(t.Context(), []string{"sh"}, 0)
		_, attachErr := c.Attach(t.Context())
		for what, err := range map[string]error{"exec": execErr, "attach": attachErr, "reopen": c.ReopenLog(t.Context())} {
			if !errors.Is(err, ErrFailedPrecondition) {
				t.Errorf("%s in an ended container: %v, want ErrFailedPrecondition", what, err)
			}
		}
	})
}

func TestViewOfACallerWhoLeftIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.world.view = &fakeView{}
		for _, step := range []string{"run a", "create a/web", "create a/db", "block Start"} {
			l.do(strings.Fields(step))
		}
		c, err := l.pods.Container(l.id("a/web"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.StartAttached(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("StartAttached gives %v, want the caller's deadline", err)
		}
		l.do([]string{"unblock", "Start"})
		synctest.Wait()
		if !l.world.view.closed {
			t.Error("the view stays open")
		}
		if c.state() != criapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("the container is %s, want it to run", stateText(c.state()))
		}

		l.world.view = &fakeView{}
		other, err := l.pods.Container(l.id("a/db"))
		if err != nil {
			t.Fatal(err)
		}
		view, err := other.StartAttached(t.Context())
		if err != nil || view != l.world.view || l.world.view.closed {
			t.Errorf("StartAttached gives %v, %v; want an open view", view, err)
		}
	})
}

func TestLogOfWhatDoesNotRunIsNotReopened(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		for _, step := range []string{"run a", "create a/web"} {
			l.do(strings.Fields(step))
		}
		reopen := func(when string) {
			t.Helper()
			c, err := l.pods.Container(l.id("a/web"))
			if err != nil {
				t.Fatal(err)
			}
			// Not even asked for, the file cannot appear.
			if err := c.ReopenLog(t.Context()); !errors.Is(err, ErrFailedPrecondition) || len(l.world.logs) > 0 {
				t.Errorf("%s: %v, reopened %v; want ErrFailedPrecondition and none", when, err, l.world.logs)
			}
		}
		reopen("before the start")
		l.do([]string{"start", "a/web"})
		l.do([]string{"exit", "a/web", "0"})
		synctest.Wait()
		reopen("after the end")
	})
}
