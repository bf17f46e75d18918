package node

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
	"cri-mini/internal/testregistry"
)

// push makes an image of the shell with more files and gets it.
func (d *daemon) push(name string, config ocispec.ImageConfig, files ...testregistry.File) (image string) {
	d.t.Helper()
	image, err := d.tryPush(name, config, files...)
	if err != nil {
		d.t.Fatal(err)
	}
	return image
}

func (d *daemon) tryPush(name string, config ocispec.ImageConfig, files ...testregistry.File) (image string, err error) {
	d.t.Helper()
	made := busybox(d.t, testregistry.Layer{Files: files})
	if config.Cmd == nil {
		config.Cmd = []string{"sleep", "1000"}
	}
	made.Config = config
	registry(d.t).Push(name, "1", made)
	image = "registry.test/" + name + ":1"
	return image, d.tryPull(image)
}

func (d *daemon) removeImage(image string) {
	d.t.Helper()
	if _, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: image}}); err != nil {
		d.t.Error(err)
	}
}

func checksum(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// CVE-2019-5736: a process of the runtime that is seen from inside leads to
// its program, and whoever writes there owns the node.
func TestProgramCannotBeOverwrittenFromInside(t *testing.T) {
	d := ready(t)
	d.runPod("first", func(c *criapi.PodSandboxConfig) { // makes the sealed program that stays
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	}).remove()
	check := d.unchanged()
	sum := checksum(t, enclosure.Program("cri-mini"))
	for _, privileged := range []bool{false, true} {
		t.Run(fmt.Sprintf("privileged %v", privileged), func(t *testing.T) {
			d.enter(t)
			p := d.runPod("shared", func(c *criapi.PodSandboxConfig) {
				c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
				c.Linux.SecurityContext.Privileged = privileged
			})
			share := func(name string, args ...string) *criapi.ContainerConfig {
				config := containerConfig(name, args...)
				config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
				config.Linux.SecurityContext.Privileged = privileged
				return config
			}
			attacker := p.run(share("attacker", "actor", "overwrite", "cri-mini", "2s"))
			for i := 0; attacker.status().State == criapi.ContainerState_CONTAINER_RUNNING; i++ {
				c := p.run(share(fmt.Sprint("bait-", i), "sleep", "1000"))
				c.exec("true")
				c.stop(0)
				c.remove()
			}
			if s := attacker.exited(); s.ExitCode != 0 {
				t.Errorf("the attacker: exit code %d", s.ExitCode)
			}
			text := readFile(t, attacker.log)
			t.Log(strings.TrimSpace(text))
			if !strings.Contains(text, "seen") || strings.Contains(text, "seen 0 times") {
				t.Error("the attacker saw no process of the runtime; the test proves nothing")
			}
			p.remove()
		})
	}
	if checksum(t, enclosure.Program("cri-mini")) != sum {
		t.Fatal("the program was overwritten")
	}
	check()
}

// CVE-2024-21626: a descriptor of the host that is open while the container
// starts is a way out, as a working folder or by its number.
func TestNoDescriptorOfTheNodeIsOpenInside(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("p")
	inside := func(text string) {
		t.Helper()
		n := 0
		for line := range strings.Lines(text) {
			_, target, _ := strings.Cut(strings.TrimSpace(line), " ")
			n++
			switch {
			case strings.HasPrefix(target, "pipe:"), target == "/dev/null":
			case strings.HasPrefix(target, "anon_inode:[event"), strings.HasPrefix(target, "/proc"): // the actor's own
			default:
				t.Errorf("inside leads %s", line)
			}
		}
		if n < 3 {
			t.Errorf("only %d descriptors: %q", n, text)
		}
	}
	first := p.run(containerConfig("first", "actor", "fds"))
	first.exited()
	var said string
	for _, r := range readLog(t, first.log) {
		said += r.text + "\n"
	}
	inside(said)
	c := p.run(containerConfig("c", "sleep", "1000"))
	inside(c.exec("actor", "fds"))

	config := ocispec.ImageConfig{WorkingDir: "/proc/self/fd/7"}
	image := d.push("workdir-fd", config)
	for n := 3; n < 33; n++ {
		for _, name := range []string{"self", "1", "thread-self"} {
			config := containerConfig("workdir", "sleep", "1000")
			config.WorkingDir = fmt.Sprintf("/proc/%s/fd/%d", name, n)
			if n == 7 && name == "self" {
				config.WorkingDir, config.Image.Image = "", image
			}
			w, err := p.try(config)
			if err == nil {
				if err = w.tryStart(); err == nil {
					t.Errorf("started with working folder %s, which leads to %s", config.WorkingDir, w.exec("readlink", "/proc/1/cwd"))
				}
				w.remove()
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("/fd/%d", n)) {
				t.Errorf("the error does not say the working folder: %v", err)
			}
		}
	}
	p.remove()
	d.removeImage(image)
	check()
}

// CVE-2021-30465: the place of a mount is exchanged for a link that leads out
// between the moment it is checked and the moment it is used.
func TestMountsCannotBeLedOutByExchangingLinks(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	shared, trap, data := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(shared, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.Repeat("../", 20)+trap[1:], filepath.Join(shared, "b")); err != nil {
		t.Fatal(err)
	}
	p := d.runPod("race")
	volume := &criapi.Mount{ContainerPath: "/vol", HostPath: shared}
	config := containerConfig("attacker", "actor", "swap", "/vol/a", "/vol/b", "3s")
	config.Mounts = []*criapi.Mount{volume}
	attacker := p.run(config)
	started, refused := 0, map[string]int{}
	for attacker.status().State == criapi.ContainerState_CONTAINER_RUNNING {
		config := containerConfig("victim", "sh", "-c", "cd /vol/a/deep/place 2>/dev/null; exec sleep 1000")
		config.Mounts = []*criapi.Mount{volume, {ContainerPath: "/vol/a/deep/place", HostPath: data}}
		config.WorkingDir = "/vol/a/work"
		c, err := p.try(config)
		if err == nil {
			if err = c.tryStart(); err == nil {
				started++
			}
			c.remove()
		}
		if err != nil {
			refused[err.Error()[strings.LastIndex(err.Error(), ": "):]]++
		}
		if entries, err := os.ReadDir(trap); err != nil || len(entries) > 0 {
			t.Fatalf("after %d starts, on the node: %v, %v", started, entries, err)
		}
	}
	if s := attacker.exited(); s.ExitCode != 0 {
		t.Errorf("the attacker: exit code %d, %s", s.ExitCode, readFile(t, attacker.log))
	}
	t.Logf("%d started, refused: %v", started, refused)
	if started < 10 {
		t.Errorf("only %d containers started during the race", started)
	}
	p.remove()
	check()
}

// CVE-2025-31133 and 2025-52565: what the image has at /dev/null or
// /dev/console is not what the runtime uses.
func TestDevicesOfTheImageAreNotUsed(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o666); err != nil {
		t.Fatal(err)
	}
	link := func(name string) testregistry.File {
		return testregistry.File{Name: name, Type: tar.TypeSymlink, Link: strings.Repeat("../", 20) + victim[1:]}
	}
	image := d.push("devices", ocispec.ImageConfig{},
		testregistry.File{Name: "dev/"}, link("dev/null"), link("dev/console"), link("dev/pts"), link("dev/ptmx"), link("dev/shm"), link("dev/fd"))
	p := d.runPod("p")
	config := containerConfig("c", "sh", "-c", "echo secret of the image >/dev/console; sleep 1000")
	config.Image.Image, config.Tty = image, true
	config.Linux.SecurityContext.MaskedPaths = []string{"/etc/motd", "/home", "/proc/kcore"}
	c := p.run(config)
	if got := c.exec("sh", "-c", "cat /etc/motd; echo overwritten >/etc/motd; cat /etc/motd; ls /home; stat -c %F,%t,%T /dev/null /dev/console"); got !=
		"character special file,1,3\ncharacter special file,88,0\n" {
		t.Errorf("masked paths and devices: %q", got)
	}
	eventually(t, "the console is the log's terminal", func() bool { return strings.Contains(readFile(t, c.log), "secret of the image") })
	if text := readFile(t, victim); text != "untouched" {
		t.Errorf("victim: %q", text)
	}
	p.remove()
	d.removeImage(image)
	check()
}

// CVE-2024-40635, 2026-46680, 2026-47262, 2024-9676: users and lists of users
// that an image makes up.
func TestUsersOfTheImageCannotBecomeRootOrExhaustTheNode(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	crafted := testregistry.File{Name: "etc/passwd", Data: "4294967296:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n"}
	huge := strings.Repeat("\x00", 64<<20)
	before := resident(t, d.pid())
	p := d.runPod("p")
	var images []string
	for i, c := range []struct {
		user  string
		file  testregistry.File
		words string
	}{
		{"4294967296", crafted, "4294967296"},
		{"2147483648:1", crafted, "2147483648"},
		{"-1", crafted, "-1"},
		{"1:4294967296", crafted, "4294967296"},
		{"stranger", crafted, "stranger"},
		{"user", testregistry.File{Name: "etc/passwd", Data: huge}, "/etc/passwd"},
		{"0:staff", testregistry.File{Name: "etc/group", Data: huge}, "/etc/group"},
		{"user", testregistry.File{Name: "etc/passwd", Type: tar.TypeFifo}, "/etc/passwd"},
		{"user", testregistry.File{Name: "etc/passwd", Type: tar.TypeChar, Major: 1, Minor: 5}, "/etc/passwd"},
		{"user", testregistry.File{Name: "etc/passwd", Type: tar.TypeSymlink, Link: "/proc/self/environ"}, "user"},
	} {
		left := count(t, d)
		image, err := d.tryPush(fmt.Sprint("user-", i), ocispec.ImageConfig{User: c.user}, c.file)
		if err == nil { // else refused earlier, and better so
			images = append(images, image)
			eventually(t, "the image is on disk", d.synced)
			left = count(t, d)
			config := containerConfig("c", "id")
			config.Image.Image = image
			_, err = p.try(config)
		}
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("user %q with %s of type %q: %v, want an error with %q", c.user, c.file.Name, c.file.Type, err, c.words)
		}
		left.compare(t, "after the refusal", func() census { return count(t, d) })
	}
	if after := resident(t, d.pid()); after > before+48<<10 {
		t.Errorf("private memory of the daemon: %d kB before, %d kB after", before, after)
	}
	p.remove()
	for _, image := range images {
		d.removeImage(image)
	}
	check()
}

// CVE-2026-53488: labels and variables of an image are words, not orders.
func TestLabelsOfTheImageOrderNothing(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	image := d.push("labels", ocispec.ImageConfig{
		Labels: map[string]string{
			"io.cri-containerd.pinned": "pinned", "io.kubernetes.cri.sandbox-id": "x", "privileged": "true", "cri-mini.privileged": "true",
			"io.kubernetes.cri-o.userns-mode": "auto", "io.containers.trace-syscall": "x", "cdi.k8s.io/device": "vendor.com/gpu=all",
		},
		Env:     []string{"LD_PRELOAD=/evil.so", "_CRI_MINI_BOOT=monitor", "GODEBUG=x", "NOTIFY_SOCKET=/run/x", "novalue", "=x"},
		Volumes: map[string]struct{}{"/../../etc": {}, "/proc": {}, "relative": {}},
	})
	p := d.runPod("p")
	plain := p.run(containerConfig("plain", "sleep", "1000"))
	config := containerConfig("labelled", "sleep", "1000")
	config.Image.Image = image
	labelled := p.run(config)
	for _, args := range [][]string{
		{"sh", "-c", "while read a b; do case $a in Cap*|Seccomp*|NoNew*|Uid*|Gid*) echo $a $b;; esac; done </proc/1/status"},
		{"sh", "-c", "while read a b c d at rest; do echo $at; done </proc/self/mountinfo"},
	} {
		if x, y := plain.exec(args...), labelled.exec(args...); x != y || len(x) < 20 {
			t.Errorf("%q without labels:\n%s\nwith:\n%s", args[2], x, y)
		}
	}
	answer, err := d.images.ImageStatus(d.context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: image}})
	if err != nil || answer.Image.Pinned {
		t.Errorf("status of the image: %v, %v", answer, err)
	}
	p.remove()
	d.removeImage(image)
	check()
}

// CVE-2022-1708, 2022-31030: the output of an exec probe is kept in memory.
func TestExecSyncKeepsWhatTheKubeletCanTake(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("p")
	c := p.run(containerConfig("c", "sleep", "1000"))
	before := resident(t, d.pid())
	const message = 16 << 20 // the kubelet's and crictl's limit
	answer, err := d.ExecSync(d.context(), &criapi.ExecSyncRequest{ContainerId: c.id, Timeout: 30,
		Cmd: []string{"sh", "-c", "head -c 40000000 /dev/zero; head -c 40000000 /dev/zero >&2; exit 9"}}, grpc.MaxCallRecvMsgSize(message))
	if err != nil {
		t.Fatalf("80 MB of output: %v", err)
	}
	if answer.ExitCode != 9 || len(answer.Stdout) < 1<<20 || len(answer.Stderr) < 1<<20 {
		t.Errorf("exit code %d, %d bytes of stdout, %d of stderr", answer.ExitCode, len(answer.Stdout), len(answer.Stderr))
	}
	var floods sync.WaitGroup
	for range 4 {
		floods.Go(func() {
			_, err := d.ExecSync(d.context(), &criapi.ExecSyncRequest{ContainerId: c.id, Timeout: 1, Cmd: []string{"actor", "flood"}})
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("endless output: %v, want %s", err, codes.DeadlineExceeded)
			}
		})
	}
	floods.Wait()
	if after := resident(t, d.pid()); after > before+256<<10 {
		t.Errorf("private memory of the daemon: %d kB before, %d kB after", before, after)
	}
	if got := c.exec("ps"); strings.Contains(got, "flood") {
		t.Errorf("a program outlived its timeout:\n%s", got)
	}
	p.remove()
	check()
}

// CVE-2020-15257: a pod in the node's network reaches its abstract sockets.
func TestSocketsOfTheNodeAreOutOfReach(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("host", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	})
	config := containerConfig("c", "sleep", "1000")
	config.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	c := p.run(config)
	if got := c.exec("actor", "sockets"); got != "" {
		t.Errorf("a pod in the node's network is %s", got)
	}
	for _, dir := range []string{d.state, d.root()} {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			if info.Mode().Type() == os.ModeSocket && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has %s", path, info.Mode())
			}
			if (path == d.root() || path == filepath.Join(d.state, "state")) && info.Mode().Perm() != 0o700 {
				t.Errorf("%s has %s, want 0700", path, info.Mode())
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	p.remove()
	check()
}

// CVE-2026-53489: whoever can write to a folder of logs would have the runtime
// write to a file of his choice, or wait for ever.
func TestLogsAreNotWrittenThroughLinks(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := d.runPod("p")
	if err := os.MkdirAll(p.config.LogDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	// in gives what is in the way of a log.
	for name, in := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink(victim, path) },
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"device": func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) },
	} {
		t.Run(name, func(t *testing.T) {
			d.enter(t)
			before := count(t, d)
			config := containerConfig(name, "sh", "-c", "echo overwritten; sleep 1000")
			path := filepath.Join(p.config.LogDirectory, config.LogPath)
			if err := in(path); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			c, err := p.try(config)
			if err == nil {
				err = c.tryStart()
				c.remove()
			}
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("log through a %s: %v, want an error with %s", name, err, path)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("that took %s", took)
			}
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
			before.compare(t, "after the refusal", func() census { return count(t, d) })

			c = p.run(config)
			eventually(t, "the first line is in the log", func() bool { return len(readLog(t, path)) == 1 })
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			if err := in(path); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
			if _, err := d.ReopenContainerLog(d.context(), &criapi.ReopenContainerLogRequest{ContainerId: c.id}); err == nil {
				t.Errorf("a log was reopened through a %s", name)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("that took %s", took)
			}
			c.remove()
		})
	}
	if text := readFile(t, victim); text != "untouched" {
		t.Errorf("victim: %q", text)
	}
	p.remove()
	check()
}
