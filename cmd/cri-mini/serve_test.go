package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// instance is a daemon with a root and a state of its own.
type instance struct {
	t       *testing.T
	listen  string
	folders []string // the flags that name them
}

// serve starts a daemon with its socket in dir. At the end of the test it goes
// with all that it made.
func serve(t *testing.T, dir, socket string, flags ...string) instance {
	t.Helper()
	home := filepath.Join(dir, strings.TrimSuffix(socket, ".sock"))
	i := instance{t: t, listen: "--listen=unix://" + filepath.Join(dir, socket), folders: []string{
		"--root=" + filepath.Join(home, "root"), "--state=" + filepath.Join(home, "state"), "--cni-conf-dir=" + home,
	}}
	i.start(flags...)
	return i
}

func (i instance) start(flags ...string) *exec.Cmd {
	i.t.Helper()
	cmd := program(i.t, append(append([]string{"serve", i.listen, "--log-level=warn"}, i.folders...), flags...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() {
		if i.command("ps").Run() != nil { // the test has ended it
			cmd.Wait()
			return
		}
		if out, err := i.command("stop", "--pods").CombinedOutput(); err != nil {
			i.t.Errorf("stop: %v: %s", err, out)
			cmd.Process.Kill()
		}
		cmd.Wait()
	})
	eventually(i.t, "the daemon answers", func() bool { return i.command("ps").Run() == nil })
	return cmd
}

func (i instance) command(args ...string) *exec.Cmd {
	return program(i.t, append([]string{args[0], i.listen}, args[1:]...)...)
}

// home is a folder with a short name, for sockets are made in it.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cri")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestTwoDaemonsWithTheirSocketsInOneFolder(t *testing.T) {
	nothingLeft(t)
	dir := home(t)
	a := serve(t, dir, "cri.sock")
	b := serve(t, dir, "b.sock")
	if out, err := b.command("stop", "--pods").CombinedOutput(); err != nil {
		t.Fatalf("stop of the second: %v: %s", err, out)
	}
	eventually(t, "the second is gone", func() bool { return b.command("ps").Run() != nil })
	if out, err := a.command("ps").CombinedOutput(); err != nil {
		t.Errorf("the first does not answer any more: %v: %s", err, out)
	}
	out, err := b.command("ps").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no daemon answers at "+dir+"/b.") {
		t.Errorf("ps of the second: %v: %s; want that no daemon answers", err, out)
	}
}

func TestContainersMayOpenAsManyFilesAsConfigured(t *testing.T) {
	nothingLeft(t)
	i := serve(t, home(t), "cri.sock", "--open-files=2345")
	out, err := i.command("run", "--rootfs", rootfs(t), "--", "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").CombinedOutput()
	if err != nil || string(out) != "2345\n2345\n" {
		t.Errorf("%v: %q; want 2345 twice", err, out)
	}
}
