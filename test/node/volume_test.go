package node

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
)

// volumeImage is the image that is mounted: a shell, and a second layer that
// hides and replaces what the first has.
const volumeImage = "registry.test/volume:1"

func pushVolume(t *testing.T) {
	link := func(name, target string) testregistry.File {
		return testregistry.File{Name: name, Type: tar.TypeSymlink, Link: target}
	}
	registry(t).Push("volume", "1", busybox(t,
		testregistry.Layer{Files: []testregistry.File{
			{Name: "data/"}, {Name: "data/kept", Data: "kept"}, {Name: "data/gone", Data: "gone"},
			{Name: "data/users", Data: "users", UID: 1000, GID: 1000, Mode: 0o600},
			{Name: "opaque/"}, {Name: "opaque/old", Data: "old"},
			{Name: "removed/"}, {Name: "removed/file", Data: "old"},
			link("absolute", "/data"), link("relative", "opaque/../data"), link("upward", "../../../../../../data"),
			link("chain", "absolute"), link("loop", "loop"), link("nowhere", "/no/such"), link("magic", "/proc/self/root/etc"),
			link("hosts", "/var/lib"), link("program", "bin/sh"),
		}},
		testregistry.Files(map[string]string{"data/.wh.gone": "", "opaque/.wh..wh..opq": "", "opaque/new": "new", ".wh.removed": ""}),
	))
}

// volume mounts the image, or a part of it, at /volume.
func volume(sub string) func(*criapi.ContainerConfig) {
	return func(c *criapi.ContainerConfig) { addVolume(c, "/volume", sub) }
}

func addVolume(c *criapi.ContainerConfig, at, sub string) {
	c.Mounts = append(c.Mounts, &criapi.Mount{
		ContainerPath: at, Readonly: true, ImageSubPath: sub,
		Image: &criapi.ImageSpec{Image: volumeImage, UserSpecifiedImage: volumeImage},
	})
}

// withVolume is the config of a container that sleeps.
func withVolume(name, sub string) *criapi.ContainerConfig {
	config := containerConfig(name, "sleep", "1000")
	addVolume(config, "/volume", sub)
	return config
}

// eachForm runs a test on a node for each way of storing layers.
func eachForm(t *testing.T, test func(t *testing.T, d *daemon)) {
	pushVolume(t)
	for _, form := range []string{"directory", "erofs"} {
		t.Run(form, func(t *testing.T) {
			d := ready(t, "--layer-form", form)
			test(t, d)
		})
	}
}

func TestImageVolumeShowsTheImageAndNobodyCanChangeIt(t *testing.T) {
	eachForm(t, func(t *testing.T, d *daemon) {
		id := d.pull(volumeImage)
		check := d.unchanged()
		p := d.runPod("whole")
		c := p.create(withVolume("c", ""))
		c.reportsVolume("created", id)
		c.start()
		c.reportsVolume("running", id)
		if got := c.exec("/volume/bin/cat", "/volume/etc/motd"); got != "hello" {
			t.Errorf("a program of the volume prints %q, want hello", got)
		}
		if got := c.exec("/volume/bin/ls", "/volume/data", "/volume/opaque"); strings.Fields(got)[0] != "/volume/data:" || strings.Join(strings.Fields(got), " ") != "/volume/data: kept users /volume/opaque: new" {
			t.Errorf("the upper layer hides and replaces, but ls shows %q", got)
		}
		for _, change := range []string{"touch /volume/new", "rm /volume/data/kept", "echo x >/volume/data/kept", "mv /volume/data /volume/d", "mkdir /volume/d"} {
			if code, told := c.tryExec("sh", "-c", change); code == 0 || !strings.Contains(told, "Read-only file system") {
				t.Errorf("%s: exit code %d, %q; want a refusal because it is read-only", change, code, told)
			}
		}
		d.restart()
		c.reportsVolume("running, with a new daemon", id)
		c.stop(0)
		c.reportsVolume("exited", id)
		p.remove()
		check()
	})
}

// A privileged container may mount anew what it sees, yet not for writing.
func TestImageVolumeStaysReadOnlyForThePrivileged(t *testing.T) {
	eachForm(t, func(t *testing.T, d *daemon) {
		d.pull(volumeImage)
		p := d.runPod("privileged", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
		config := withVolume("c", "data")
		config.Linux.SecurityContext.Privileged = true
		c := p.run(config)
		c.tryExec("mount", "-o", "remount,rw", "/volume")
		if code, told := c.tryExec("touch", "/volume/new"); code == 0 {
			t.Errorf("the image can be written to after a remount: %q", told)
		}
		other := p.run(withVolume("other", "data"))
		if got := strings.Join(strings.Fields(other.exec("ls", "/volume")), " "); got != "kept users" {
			t.Errorf("the next container sees %q", got)
		}
		p.remove()
	})
}

func TestPartOfAnImageIsMounted(t *testing.T) {
	eachForm(t, func(t *testing.T, d *daemon) {
		d.pull(volumeImage)
		p := d.runPod("parts")
		const data = "kept users"
		for sub, want := range map[string]string{
			"etc": "group motd passwd", "data": data, "data/": data, "./opaque": "new",
			// Links are followed as in a container of the image.
			"absolute": data, "relative": data, "upward": data, "chain": data,
		} {
			c := p.run(withVolume("c", sub))
			if got := strings.Join(strings.Fields(c.exec("ls", "/volume")), " "); got != want {
				t.Errorf("sub path %q shows %q, want %q", sub, got, want)
			}
			c.stop(0)
			c.remove()
		}
		file := p.run(withVolume("file", "etc/motd"))
		if got := file.exec("cat", "/volume"); got != "hello" {
			t.Errorf("a file as the volume holds %q, want hello", got)
		}
		config := containerConfig("program", "/tool/sh", "-c", "exit 3")
		addVolume(config, "/tool/sh", "program")
		if s := p.run(config).exited(); s.ExitCode != 3 {
			t.Errorf("a program as the volume ended with %d, want 3", s.ExitCode)
		}
		p.remove()
	})
}

// What the kubelet looks for is the beginning of the text.
const volumeFailed = "ImageVolumeMountFailed: "

func TestImageVolumeThatCannotBeIsRefused(t *testing.T) {
	eachForm(t, func(t *testing.T, d *daemon) {
		d.pull(volumeImage)
		p := d.runPod("bad")
		p.create(withVolume("good", "")) // the mounts of layers are kept
		check := d.unchanged()
		missing := func(sub string) bad {
			return p.badVolume("sub path "+sub, codes.InvalidArgument, volume(sub), "config.mounts[0].image_sub_path", `"`+sub+`"`)
		}
		change := func(change func(*criapi.Mount)) func(*criapi.ContainerConfig) {
			return func(c *criapi.ContainerConfig) {
				addVolume(c, "/volume", "")
				change(c.Mounts[0])
			}
		}
		d.refuses(t, []bad{
			missing("no/such"), missing("data/gone"), missing("opaque/old"), missing("removed"), missing("removed/file"),
			missing("loop"), missing("nowhere"), missing("data/kept/below"), missing("hosts"), missing("magic"),
			missing("../etc"), missing("data/../../etc"), missing("/etc"), missing("proc/self/root"),
			p.badVolume("writable", codes.InvalidArgument, change(func(m *criapi.Mount) { m.Readonly = false }), "config.mounts[0].readonly", "false"),
			p.badVolume("with a host path", codes.InvalidArgument, change(func(m *criapi.Mount) { m.HostPath = "/etc" }), "config.mounts[0].host_path", "/etc"),
			p.badVolume("not pulled", codes.NotFound, change(func(m *criapi.Mount) { m.Image.Image = "registry.test/none:1" }), "config.mounts[0].image.image", "registry.test/none:1", "pulled"),
			p.badVolume("without a name", codes.InvalidArgument, change(func(m *criapi.Mount) { m.Image.Image = "" }), "config.mounts[0].image.image"),
		})
		check()
		p.remove()
	})
}

// badVolume is a container that cannot be created. The error must begin as the
// kubelet expects.
func (p *pod) badVolume(name string, code codes.Code, change func(*criapi.ContainerConfig), says ...string) bad {
	return bad{name, func() error {
		config := containerConfig("bad", "sleep", "1000")
		change(config)
		_, err := p.try(config)
		if text := status.Convert(err).Message(); err != nil && !strings.HasPrefix(text, volumeFailed) {
			p.d.t.Errorf("%q does not begin with %q", text, volumeFailed)
		}
		return err
	}, code, says}
}

func TestOneImageCanBeMountedManyTimes(t *testing.T) {
	eachForm(t, func(t *testing.T, d *daemon) {
		id := d.pull(volumeImage)
		p := d.runPod("twice")
		config := withVolume("c", "")
		config.Image.Image = volumeImage
		addVolume(config, "/volume/opaque", "data") // below the other
		addVolume(config, "/second", "")
		c := p.run(config)
		if got := strings.Join(strings.Fields(c.exec("cat", "/data/kept", "/volume/data/kept", "/volume/opaque/kept", "/second/opaque/new")), " "); got != "keptkeptkeptnew" {
			t.Errorf("root file system and three mounts show %q", got)
		}
		other := p.run(withVolume("other", ""))
		for _, m := range append(c.status().Mounts, other.status().Mounts...) {
			if m.Image.ImageRef != id {
				t.Errorf("mount at %s reports %q, want %s", m.ContainerPath, m.Image.ImageRef, id)
			}
		}
		p.remove()
	})
}

func TestImageVolumeOfAPodWithUserNamespaceHasItsIDs(t *testing.T) {
	eachForm(t, func(t *testing.T, d *daemon) {
		d.pull(volumeImage)
		ids := []*criapi.IDMapping{{HostId: 200000, ContainerId: 0, Length: 65536}}
		users := &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: ids, Gids: ids}
		p := d.runPod("users", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users })
		// The kubelet names the mapping in each mount. Where it does not, an image
		// can mean nothing else.
		for name, mapping := range map[string][]*criapi.IDMapping{"named": ids, "not named": nil} {
			config := withVolume("c", "")
			addVolume(config, "/part", "data")
			for _, m := range config.Mounts {
				m.UidMappings, m.GidMappings = mapping, mapping
			}
			config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
			c := p.run(config)
			if got := strings.TrimSpace(c.exec("/volume/bin/stat", "-c", "%u:%g", "/volume/bin/sh", "/volume/data/users", "/part/kept", "/part/users")); got != "0:0\n1000:1000\n0:0\n1000:1000" {
				t.Errorf("mapping %s: owners %q", name, got)
			}
			if got := c.exec("cat", "/part/users"); got != "users" { // of mode 0600, by the pod's root
				t.Errorf("mapping %s: %q", name, got)
			}
			if code, told := c.tryExec("touch", "/part/users"); code == 0 {
				t.Errorf("mapping %s: the volume can be written to: %q", name, told)
			}
			c.stop(0)
			c.remove()
		}
		p.remove()
	})
}

// An image that is removed loses its names. Its files stay as long as a
// container has them mounted, or might.
func TestMountedImageOutlivesItsRemoval(t *testing.T) {
	eachForm(t, func(t *testing.T, d *daemon) {
		before := d.layers()
		d.pull(volumeImage)
		p := d.runPod("held")
		running := p.run(withVolume("running", "data"))
		waiting := p.create(withVolume("waiting", "data"))
		ended := p.run(withVolume("ended", "data"))
		ended.stop(0)

		if _, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: volumeImage}}); err != nil {
			t.Fatal(err)
		}
		answer, err := d.images.ImageStatus(d.context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: volumeImage}})
		if err != nil || answer.Image != nil {
			t.Errorf("the removed image is still there: %v, %v", answer, err)
		}
		if _, err := p.try(withVolume("late", "data")); status.Code(err) != codes.NotFound {
			t.Errorf("a new container with the removed image: %v, want NotFound", err)
		}
		for _, restart := range []func(){func() {}, d.restart, d.killMonitor, d.restart} {
			restart()
			if got := running.exec("cat", "/volume/kept"); got != "kept" {
				t.Errorf("the running container sees %q", got)
			}
		}
		waiting.start()
		if got := waiting.exec("cat", "/volume/users"); got != "users" {
			t.Errorf("the container that was started after the removal sees %q", got)
		}
		for _, c := range []*container{running, waiting} {
			c.stop(0)
			c.remove()
		}
		// Only the exited container is left, also in the memory of a new daemon.
		d.restart()
		if d.layers() <= before {
			t.Errorf("%d layers are left while a container has the image, %d without", d.layers(), before)
		}
		ended.remove()
		eventually(t, "the layers are gone with the last container", func() bool { return d.layers() == before })
		p.remove()
	})
}

// layers is how many there are on the disk.
func (d *daemon) layers() int {
	d.t.Helper()
	list, err := os.ReadDir(filepath.Join(d.root(), "images/layers/layers"))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(list)
}

// reportsVolume checks what ContainerStatus says of the mount.
func (c *container) reportsVolume(when, id string) {
	c.d.t.Helper()
	mounts := c.status().Mounts
	if len(mounts) != 1 {
		c.d.t.Fatalf("%s: %d mounts, want 1", when, len(mounts))
	}
	m := mounts[0]
	if m.ContainerPath != "/volume" || !m.Readonly || m.Image.GetImage() != volumeImage || m.Image.GetUserSpecifiedImage() != volumeImage || m.Image.GetImageRef() != id {
		c.d.t.Errorf("%s: mount %v, want %s with image_ref %s", when, m, volumeImage, id)
	}
}

// tryExec gives the exit code and what the command said.
func (c *container) tryExec(args ...string) (int32, string) {
	c.d.t.Helper()
	answer, err := c.d.ExecSync(c.d.context(), &criapi.ExecSyncRequest{ContainerId: c.id, Cmd: args, Timeout: 60})
	if err != nil {
		c.d.t.Fatalf("exec %q: %v", args, err)
	}
	return answer.ExitCode, string(answer.Stdout) + string(answer.Stderr)
}
