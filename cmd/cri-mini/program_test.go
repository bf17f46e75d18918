package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
	"cri-mini/internal/testtool"
)

func TestMain(m *testing.M) {
	code := leakcheck.Run(m)
	os.Remove(programPath)
	os.Exit(code)
}

var programPath = filepath.Join(os.TempDir(), "cri-mini-test-"+strconv.Itoa(os.Getpid()))

// build makes the program as it is shipped: static.
var build = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", programPath, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// program is cri-mini as a process.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return exec.Command(programPath, args...)
}

// rootfs is a folder with a busybox.
func rootfs(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(testtool.Need(t, "busybox", "busybox-static"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "sleep", "echo", "stty", "id", "true"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// nothingLeft fails when a private daemon leaves anything. It keeps its folder
// unless all is cleared, so the folder tells.
func nothingLeft(t *testing.T) {
	t.Helper()
	leakcheck.Check(t)
	dir, err := os.MkdirTemp("", "run") // a short name, for sockets are made below it
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		eventually(t, "the private daemon is gone", func() bool {
			entries, err := os.ReadDir(dir)
			return err == nil && len(entries) == 0
		})
		os.RemoveAll(dir)
	})
}

func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	for range 200 {
		if true() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("after 10s still not: %s", what)
}

func exitOf(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func TestRunNeedsNoDaemonAndLeavesNothing(t *testing.T) {
	nothingLeft(t)
	root := rootfs(t)
	for _, c := range []struct {
		name   string
		args   []string
		stdin  string
		code   int
		stdout string
		stderr string
	}{
		{"output", []string{"--", "/bin/sh", "-c", "echo out; echo err >&2"}, "", 0, "out\n", "err\n"},
		{"exit code", []string{"--", "/bin/sh", "-c", "exit 7"}, "", 7, "", ""},
		{"signal", []string{"--", "/bin/sh", "-c", "kill -9 $$"}, "", 137, "", ""},
		{"stdin", []string{"-i", "--", "/bin/cat"}, strings.Repeat("text\n", 50000), 0, strings.Repeat("text\n", 50000), ""},
		{"no stdin", []string{"--", "/bin/cat"}, "ignored", 0, "", ""},
		{"flags", []string{"--user", "5:6", "-e", "A=b", "-v", root + ":/seen:ro", "--", "/bin/sh", "-c", "echo $A; id -u; id -g; [ -x /seen/bin/sh ] && ! echo >/seen/x"}, "", 0, "b\n5\n6\n", "/bin/sh: can't create /seen/x: Read-only file system\n"},
		{"no such program", []string{"--", "/nope"}, "", 127, "", "/nope: executable file not found"},
		{"no such path", []string{"-v", "/nowhere:/x", "--", "/bin/true"}, "", 125, "", "/nowhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := program(t, append([]string{"run", "--listen=unix://" + t.TempDir() + "/none.sock", "--rootfs", root}, c.args...)...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
			code := exitOf(cmd.Run())
			if code != c.code || stdout.String() != c.stdout || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("exit %d, stdout %.80q, stderr %q; want %d, %.80q, %q", code, stdout.String(), stderr.String(), c.code, c.stdout, c.stderr)
			}
		})
	}
}

func TestRunTakesAnArchiveAndAProgram(t *testing.T) {
	nothingLeft(t)
	dir := home(t)
	archive := filepath.Join(dir, "rootfs.tgz")
	if out, err := exec.Command("tar", "-C", rootfs(t), "-czf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	i := serve(t, dir, "cri.sock")
	alone := "--listen=unix://" + dir + "/none.sock"
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--rootfs", archive, "--", "id", "-u"}, 0, "0\n"},
		{[]string{"--rootfs", testtool.Need(t, "busybox", "busybox-static"), "--", "echo", "hello"}, 0, "hello\n"},
		{[]string{"--rootfs", "/nowhere", "--", "id"}, 125, "cri-mini: --rootfs \"/nowhere\": stat /nowhere: no such file or directory\n"},
		{[]string{"--rootfs", "/etc/passwd", "--", "id"}, 125, "cri-mini: --rootfs \"/etc/passwd\": "},
	} {
		for _, listen := range []string{i.listen, alone} {
			out, err := program(t, append([]string{"run", listen}, c.args...)...).CombinedOutput()
			if exitOf(err) != c.code || !strings.HasPrefix(string(out), c.want) {
				t.Errorf("%s %q: %v: %q; want exit %d, %q", listen, c.args, err, out, c.code, c.want)
			}
		}
	}
	if out, err := i.command("images", "-q").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("images that stayed: %s, %v", out, err)
	}
}

func TestKilledRunLeavesNothing(t *testing.T) {
	nothingLeft(t)
	root := rootfs(t)
	for name, end := range map[string]func(run *exec.Cmd){
		"client killed": func(run *exec.Cmd) { run.Process.Kill() },
		"program told to end": func(run *exec.Cmd) {
			run.Process.Signal(syscall.SIGTERM)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run := program(t, "run", "--listen=unix://"+t.TempDir()+"/none.sock", "--rootfs", root, "--", "/bin/sh", "-c", "echo up; sleep 1000")
			out, err := run.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			if n, err := out.Read(make([]byte, 10)); n != 3 {
				t.Errorf("read %d bytes, %v; want up", n, err)
			}
			end(run)
			run.Wait()
		})
	}
}

// terminalFor gives a command a terminal of its own, as a shell does.
func terminalFor(t *testing.T, cmd *exec.Cmd, columns, rows uint16) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var number int
	control(t, master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	resizeTerminal(t, master, columns, rows)
	slave, err := os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(number)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return master
}

func resizeTerminal(t *testing.T, master *os.File, columns, rows uint16) {
	t.Helper()
	control(t, master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	})
}

// control leaves f as it is; Fd would make its reads block for ever.
func control(t *testing.T, f *os.File, do func(fd int) error) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) { failed = do(int(fd)) }), failed); err != nil {
		t.Fatal(err)
	}
}

// cooked tells whether the terminal edits lines, as a shell wants it.
func cooked(t *testing.T, master *os.File) bool {
	t.Helper()
	var mode *unix.Termios
	control(t, master, func(fd int) (err error) {
		mode, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return mode.Lflag&unix.ICANON != 0 && mode.Lflag&unix.ECHO != 0
}

func TestRunOnATerminal(t *testing.T) {
	nothingLeft(t)
	cmd := program(t, "run", "--listen=unix://"+t.TempDir()+"/none.sock", "--rootfs", rootfs(t), "--", "/bin/sh", "-c",
		`sleep 0.3; stty size; read x; stty size; trap "echo interrupted" INT; sleep 1000; read y; exit 9`)
	master := terminalFor(t, cmd, 99, 33)
	var seen bytes.Buffer
	expect := func(text string) {
		t.Helper()
		master.SetReadDeadline(time.Now().Add(20 * time.Second))
		buffer := make([]byte, 1024)
		for !strings.Contains(seen.String(), text) {
			n, err := master.Read(buffer)
			if err != nil {
				t.Fatalf("terminal shows %q, then %v; want %q", seen.String(), err, text)
			}
			seen.Write(buffer[:n])
		}
		seen.Reset()
	}
	expect("33 99")
	resizeTerminal(t, master, 111, 44)
	time.Sleep(300 * time.Millisecond) // on its way: SIGWINCH, a frame, the other terminal
	master.WriteString("\n")
	expect("44 111")
	time.Sleep(300 * time.Millisecond) // until the shell sleeps
	master.WriteString("\x03")
	expect("interrupted")
	if cooked(t, master) {
		t.Error("our terminal is not raw while the program has it")
	}
	master.WriteString("\n")
	if code := exitOf(cmd.Wait()); code != 9 {
		t.Errorf("exit %d, want 9", code)
	}
	if !cooked(t, master) {
		t.Error("our terminal was not restored")
	}
}
