package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These boot real machines, of what `hack/vm` keeps in the repository's cache.

type outcome struct {
	status         int
	stdout, stderr string
}

func vm(t *testing.T, arguments ...string) outcome {
	t.Helper()
	command, stdout, stderr := vmCommand(t, context.Background(), arguments...)
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{command.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func vmCommand(t *testing.T, ctx context.Context, arguments ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	for name, debian := range map[string]string{"apt-get": "apt", "dpkg-deb": "dpkg", "mke2fs": "e2fsprogs", "xz": "xz-utils"} {
		if _, err := tool(name, debian); err != nil {
			t.Skip(err)
		}
	}
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, "../../vm", arguments...)
	command.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // which must be empty at the end
	command.Stdout, command.Stderr = &stdout, &stderr
	temporary := command.Env[len(command.Env)-1][len("TMPDIR="):]
	t.Cleanup(func() {
		left, err := filepath.Glob(temporary + "/*")
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	})
	return command, &stdout, &stderr
}

func TestCommandRunsOnAPureCgroup2NodeWithPayloadAndResults(t *testing.T) {
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(in+"/input", []byte("from outside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := vm(t, "-in", in+"/input:deep/input", "-out", out, "-env", "GREETING=hello", "-lsm", "apparmor", "--", "sh", "-c",
		`cat deep/input; echo $GREETING; cat /sys/fs/cgroup/cgroup.subtree_control /sys/module/apparmor/parameters/enabled
		cut -d' ' -f3 /proc/mounts | grep -cx cgroup; echo result >/out/result; echo aside >&2; (sleep 100 &); exit 7`)
	const want = "from outside\nhello\ncpuset cpu io memory hugetlb pids rdma misc\nY\n0\n"
	if got.status != 7 || got.stdout != want || !strings.Contains(got.stderr, "aside\n") {
		t.Errorf("status %d, output %q, errors %q; want 7, %q", got.status, got.stdout, got.stderr, want)
	}
	if text, err := os.ReadFile(out + "/result"); string(text) != "result\n" {
		t.Errorf("result %q, %v", text, err)
	}
}

func TestKeptDiskHasWhatAMachineLeftThatLostItsPower(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk,of the node")
	got := vm(t, "-disk", disk, "--", "sh", "-c", "echo kept >/disk/file; sync /disk/file; echo b >/proc/sysrq-trigger; sleep 1000")
	if got.status != statusBroken || !strings.Contains(got.stderr, "the machine ended by itself") {
		t.Errorf("status %d, errors %q; want %d", got.status, got.stderr, statusBroken)
	}
	if got := vm(t, "-disk", disk, "--", "cat", "/disk/file"); got.status != 0 || got.stdout != "kept\n" {
		t.Errorf("status %d, output %q, errors %q; want what the first machine wrote", got.status, got.stdout, got.stderr)
	}
}

func TestDeadGuestIsNoticedAndItsLastWordsAreShown(t *testing.T) {
	got := vm(t, "--", "sh", "-c", "echo c >/proc/sysrq-trigger")
	if got.status != statusBroken || !strings.Contains(got.stderr, "the machine ended by itself") || !strings.Contains(got.stderr, "sysrq") {
		t.Errorf("status %d, errors %q; want %d and the console", got.status, got.stderr, statusBroken)
	}
}

func TestTimeoutEndsTheMachine(t *testing.T) {
	got := vm(t, "-timeout", "1s", "--", "sleep", "1000")
	if got.status != statusTimeout || !strings.Contains(got.stderr, "not ended after 1s") {
		t.Errorf("status %d, errors %q; want %d", got.status, got.stderr, statusTimeout)
	}
}

func TestInterruptEndsTheMachine(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	command, stdout, stderr := vmCommand(t, ctx, "--", "sh", "-c", "echo runs; exec sleep 1000")
	command.Stdout = trigger{stdout, interrupt}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGINT) }
	command.WaitDelay = time.Minute
	// Waits also until QEMU has closed what it inherited.
	if err := command.Run(); err == nil || command.ProcessState.ExitCode() != 130 {
		t.Errorf("status %d, %v, errors %q; want 130", command.ProcessState.ExitCode(), err, stderr)
	}
}

// trigger acts when something is written.
type trigger struct {
	io.Writer
	act func()
}

func (t trigger) Write(b []byte) (int, error) {
	t.act()
	return t.Writer.Write(b)
}

func TestBadOptionsAreNamed(t *testing.T) {
	for want, arguments := range map[string][]string{
		`-kernel "5.4"`:  {"-kernel", "5.4", "--", "true"},
		`-lsm "selinux"`: {"-lsm", "selinux", "--", "true"},
		"-cpus 0":        {"-cpus", "0", "--", "true"},
		"no command":     {},
	} {
		if got := vm(t, arguments...); got.status != statusBroken || !strings.Contains(got.stderr, want) {
			t.Errorf("%q: status %d, errors %q; want %q", arguments, got.status, got.stderr, want)
		}
	}
}
