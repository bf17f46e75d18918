package main

import (
	"io"
	"log"
	"net/http/httptest"
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
		out, err := i.command("stop", "--pods").CombinedOutput()
		if err != nil && !strings.Contains(string(out), "no daemon answers") { // else the test has ended it
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

func TestMistakesWithADaemonGetAHint(t *testing.T) {
	nothingLeft(t)
	dir := home(t)
	certs := filepath.Join(dir, "certs")
	i := serve(t, dir, "cri.sock", "--registry-config-dir="+certs)
	archive := filepath.Join(dir, "rootfs.tgz")
	if out, err := exec.Command("tar", "-C", rootfs(t), "-czf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	registry := httptest.NewUnstartedServer(nil)
	registry.Config.ErrorLog = log.New(io.Discard, "", 0)
	registry.StartTLS()
	defer registry.Close()
	host := registry.Listener.Addr().String()
	for _, c := range []struct {
		args []string
		want string // of the last line
	}{
		{[]string{"import", archive}, "use --rootfs"},
		{[]string{"import", programPath}, "use --rootfs"},
		{[]string{"pull", host + "/x"}, "put the certificate of its authority into " + certs + "/" + host + "/ca.crt"},
	} {
		out, err := i.command(c.args...).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if exitOf(err) != 1 || len(lines) != 2 || !strings.HasSuffix(lines[len(lines)-1], c.want) {
			t.Errorf("%q: %v: %s; want an error and a line with %q", c.args, err, out, c.want)
		}
	}
	again := program(t, append([]string{"serve", "--listen=unix://" + dir + "/again.sock"}, i.folders...)...)
	if out, err := again.CombinedOutput(); err == nil || !strings.HasSuffix(string(out), "root belongs to another running daemon\n") {
		t.Errorf("serve again: %v: %s", err, out)
	}
	if err := os.Remove(filepath.Join(dir, "cri.sock")); err != nil {
		t.Fatal(err)
	}
	out, err := i.command("ps").CombinedOutput()
	if want := "cri-mini: no daemon answers at " + dir + "/cri.sock: connect: no such file or directory\n"; err == nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("ps without the CRI socket: %v: %s; want %s", err, out, want)
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

// What only the machine can tell of a flag is asked before anything is made.
func TestRefusedStreamFlagsLeaveNothing(t *testing.T) {
	nothingLeft(t)
	for name, c := range map[string]struct {
		flags []string
		want  string
	}{
		"address of another":  {[]string{"--stream-address=192.0.2.1:0"}, `stream address "192.0.2.1:0"`},
		"beyond the loopback": {[]string{"--stream-address=0.0.0.0:0"}, `stream address "0.0.0.0:0"`},
		"no certificate":      {[]string{"--stream-certificate=/no/such.pem", "--stream-key=/no/such.key"}, "/no/such.pem"},
		"not a certificate":   {[]string{"--stream-certificate=" + programPath, "--stream-key=" + programPath}, "stream certificate " + programPath},
	} {
		t.Run(name, func(t *testing.T) {
			dir := home(t)
			args := append([]string{"serve", "--listen=unix://" + dir + "/cri.sock", "--root=" + dir + "/root", "--state=" + dir + "/state"}, c.flags...)
			out, err := program(t, args...).CombinedOutput()
			if err == nil || !strings.HasPrefix(string(out), "cri-mini: ") || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), c.want) {
				t.Errorf("serve %v: %v: %s; want one line with %s", c.flags, err, out, c.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("it made %v, %v", left, err)
			}
		})
	}
}
