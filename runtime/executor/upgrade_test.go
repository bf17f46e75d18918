package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/testtool"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// upgrade has the monitor execute a program, and checks that it is the same
// process.
func (n *node) upgrade(program string) error {
	n.t.Helper()
	own, pid := ownProgram, n.MonitorPID()
	defer func() { ownProgram = own }()
	ownProgram = program
	err := n.UpgradeMonitor(n.t.Context())
	if n.MonitorPID() != pid {
		n.t.Errorf("the monitor is process %d, was %d", n.MonitorPID(), pid)
	}
	if err == nil && !runs(n.t, pid, program) {
		n.t.Errorf("the monitor does not run %s", program)
	}
	return err
}

func runs(t testing.TB, pid int, program string) bool {
	t.Helper()
	a, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(a, b)
}

func (n *node) open() int {
	n.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.MonitorPID()))
	if err != nil {
		n.t.Fatal(err)
	}
	return len(list)
}

// opensNoMore waits: a connection that we closed is one of the monitor's for a
// moment.
func (n *node) opensNoMore(before int) {
	n.t.Helper()
	for end := time.Now().Add(time.Minute); n.open() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("the monitor has %d descriptors, had %d", n.open(), before)
		}
	}
}

// until waits for a text in a log.
func until(t testing.TB, log, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		got, err := os.ReadFile(log)
		if err == nil && strings.Contains(string(got), text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %q in the log %q, %v", text, got, err)
		}
	}
}

func TestMonitorOfAnotherBuildExecutesOursAndKeepsAll(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	programs := []string{testtool.OtherBuild(t, ownProgram), ownProgram}
	const turns = 6

	half := n.container("half", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "i=0; while read x; do echo -n $x; test $x = end && break; i=$((i+1)); done; exit $i")
	n.start(half)
	terminal := n.container("terminal", func(s *spec.Container) { s.Process.Terminal, s.Stdin = true, true }, "cat")
	n.start(terminal)
	n.start(n.container("ends", nil, "sh", "-c", "sleep 1; exit 44"))

	input, err := n.Attach(t.Context(), "half")
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	// More than the pipes hold: it waits, with bytes that only the monitor has.
	slow := n.container("slow", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "read x; i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done")
	n.start(slow)
	view, err := n.Attach(t.Context(), "slow")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	io.WriteString(view.Stdin(), "go\n")
	until(t, slow.LogPath, "line 1000")

	p := half.Process
	p.Args = []string{"sh", "-c", "read x; echo got $x; exit 5"}
	x, err := n.Exec(t.Context(), "half", p, spec.ExecIO{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()

	before := n.open()
	for i := range turns {
		io.WriteString(input.Stdin(), fmt.Sprintln(i))
		time.Sleep(20 * time.Millisecond) // both in and not yet in the monitor are right
		if err := n.upgrade(programs[i%2]); err != nil {
			t.Fatalf("upgrade %d: %v", i, err)
		}
	}
	n.opensNoMore(before)
	if err := n.upgrade(programs[(turns-1)%2]); err != nil {
		t.Errorf("upgrade to the same build: %v", err)
	}

	text, err := io.ReadAll(view.Stdout())
	if lines := strings.Count(string(text), "\n"); err != nil || lines != 30000 || !strings.HasSuffix(string(text), "line 29999\n") {
		t.Errorf("the slow client saw %d lines, %v", lines, err)
	}
	io.WriteString(x.Stdin(), "it\n")
	out, _ := io.ReadAll(x.Stdout())
	if code, err := x.Wait(t.Context()); code != 5 || string(out) != "got it\n" || err != nil {
		t.Errorf("exec: exit code %d, %q, %v; want 5, got it", code, out, err)
	}
	io.WriteString(input.Stdin(), "end\n")
	codes := map[string]int{}
	for len(codes) < 3 {
		select {
		case x := <-n.Exits():
			codes[x.ID] = x.Exit.Code
		case <-time.After(time.Minute):
			t.Fatalf("exits so far: %v", codes)
		}
	}
	if codes["half"] != turns || codes["ends"] != 44 || codes["slow"] != 0 {
		t.Errorf("exit codes %v, want %d, 44, 0", codes, turns)
	}
	if got := logText(t, half.LogPath); got != "012345end\n" {
		t.Errorf("a line that began under one monitor and ended under another is %q", got)
	}
	if lines := strings.Count(logText(t, slow.LogPath), "\n"); lines != 30000 {
		t.Errorf("%d lines in the log, want 30000", lines)
	}
}

// differing is a program with another number in a constant of package wire.
func differing(t *testing.T, file, constant string) string {
	t.Helper()
	name, err := filepath.Abs(filepath.Join("../wire", file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^const ` + constant + ` = \d+$`)
	if !line.Match(source) {
		t.Fatalf("%s has no %s", file, constant)
	}
	dir := t.TempDir()
	changed, overlay, program := filepath.Join(dir, file), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "init")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{name: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(changed, line.ReplaceAll(source, []byte("const "+constant+" = 99")), 0o600), os.WriteFile(overlay, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-overlay", overlay, "-o", program, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

func TestMonitorOfAnotherProtocolIsUpgradedBeforeAnythingElse(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	c := n.container("a", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "echo -n begin; read x; echo $x; exit 3")
	n.start(c)
	pid := n.MonitorPID()
	// The other build does execute, and answers as what it is.
	if err := n.upgrade(differing(t, "wire.go", "Version")); err == nil || !strings.Contains(err.Error(), "99") {
		t.Fatalf("a monitor of version 99: %v", err)
	}
	n.Close()
	n.nextDaemon()
	if n.MonitorPID() != pid || !runs(t, pid, ownProgram) {
		t.Errorf("the monitor is %d and runs our program: %t; want %d", n.MonitorPID(), runs(t, pid, ownProgram), pid)
	}
	n.ends(c, "end\n", 3, "beginend\n")
}

// A daemon of an older build, say: nothing is read, everything is handed over
// once more.
func TestMonitorThatCannotReadTheHandoverGetsWhatTheDaemonHolds(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	c := n.container("a", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "read x; echo $x; exit 3")
	n.start(c)
	pid := n.MonitorPID()
	if err := n.upgrade(differing(t, "handover.go", "HandoverVersion")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		_, pins, pinsErr := n.monitor.request(t.Context(), &wire.Request{Verb: wire.Fetch, ID: "pod"}, nil)
		_, streams, err := n.monitor.request(t.Context(), &wire.Request{Verb: wire.Files, ID: "a"}, nil)
		pins.close()
		streams.close()
		if pinsErr == nil && err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not handed over: %v, %v", pinsErr, err)
		}
	}
	if n.MonitorPID() != pid {
		t.Errorf("the monitor is process %d, was %d", n.MonitorPID(), pid)
	}
	n.ends(c, "end\n", 3, "end\n")
}

func TestMonitorThatCannotExecuteTheProgramGoesOn(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	c := n.container("a", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "echo -n begin; read x; echo end; exit 3")
	n.start(c)
	view, err := n.Attach(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	dir := t.TempDir()
	own, before := ownProgram, n.open()
	defer func() { ownProgram = own }()
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    error
	}{
		"no program":        {"no program", 0o755, unix.ENOEXEC},
		"cut program":       {"\x7fELF\x02\x01\x01", 0o755, unix.ENOEXEC},
		"script":            {"#!/bin/true\n", 0o755, unix.ENOENT},
		"not executable":    {"no program", 0o644, unix.EACCES},
		"empty":             {"", 0o755, unix.ENOEXEC},
		"program of others": {"\x7fELF", 0o755, unix.ENOEXEC},
	} {
		ownProgram = filepath.Join(dir, name)
		if err := os.WriteFile(ownProgram, []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		var told *errMonitor
		if err := n.monitor.upgrade(t.Context()); !errors.Is(err, c.want) || !errors.As(err, &told) {
			t.Errorf("%s: %v, want %v from the monitor", name, err, c.want)
		}
	}
	ownProgram = own
	n.opensNoMore(before)
	io.WriteString(view.Stdin(), "x\n")
	if exit := n.exit("a"); exit.Code != 3 {
		t.Errorf("exit %+v, want 3", exit)
	}
	if got := logText(t, c.LogPath); got != "beginend\n" {
		t.Errorf("log %q", got)
	}
}
