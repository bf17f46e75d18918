package node

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
)

func (d *daemon) tryPull(name string) error {
	_, err := d.images.PullImage(d.context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: name}})
	return err
}

func (d *daemon) badPull(name string, code codes.Code, image string, says ...string) bad {
	return bad{name, func() error { return d.tryPull(image) }, code, says}
}

func TestBadImagesAreRefused(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	r := registry(t)
	absent := digest.FromString("absent")
	flipped := r.Push("flipped", "1", testregistry.Image{Layers: []testregistry.Layer{testregistry.Files(map[string]string{"a": "flipped"})}})
	r.Fault(testregistry.Fault{Path: flipped.Layers[0].String(), Flip: true})
	defer r.ClearFaults()

	whole := testregistry.Files(map[string]string{"a": strings.Repeat("truncated ", 10000)}).Archive()
	r.Push("truncated", "1", testregistry.Image{Layers: []testregistry.Layer{{
		Tar: whole, Compression: testregistry.None, Blob: whole[:len(whole)/2], MediaType: ocispec.MediaTypeImageLayer}}})
	r.Push("notgzip", "1", testregistry.Image{Layers: []testregistry.Layer{{Blob: []byte("no archive at all")}}})
	r.Push("wrongdiff", "1", testregistry.Image{Layers: []testregistry.Layer{{Files: []testregistry.File{{Name: "a", Data: "wrong"}}, DiffID: absent}}})
	r.PutManifest("nomanifest", "1", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"layers":"many"}`))
	r.Push("foreign", "1", testregistry.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "pdp11"}, Index: true})

	// What a hostile layer wants to make, change or read outside.
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	for name, files := range map[string][]testregistry.File{
		"dotdot":  {{Name: up + outside[1:] + "/made", Data: "x"}},
		"linkout": {{Name: "link", Type: tar.TypeLink, Link: up + victim[1:]}},
		"linkabs": {{Name: "link", Type: tar.TypeLink, Link: victim}},
		"fifodir": {{Name: "f", Type: tar.TypeFifo}, {Name: "f/below", Data: "x"}},
		"loop":    {{Name: "a", Type: tar.TypeSymlink, Link: "a"}, {Name: "a/below", Data: "x"}},
		"baddev":  {{Name: "dev", Type: tar.TypeChar, Major: 1 << 40, Minor: 3}},
	} {
		r.Push("hostile-"+name, "1", testregistry.Image{Layers: []testregistry.Layer{{Files: files}}})
	}
	d.refuses(t, []bad{
		d.badPull("unknown image", codes.NotFound, r.Host()+"/none:1", r.Host()+"/none:1"),
		d.badPull("unknown tag", codes.NotFound, r.Host()+"/busybox:none", r.Host()+"/busybox:none"),
		d.badPull("unknown digest", codes.NotFound, r.Host()+"/busybox@"+absent.String(), absent.String()),
		// A mirror does not have it, and the registry itself cannot be asked.
		d.badPull("unknown to the mirror", codes.Unknown, "registry.test/none:1", "RegistryUnavailable", "registry.test/none:1", r.Host(), "404"),
		d.badPull("upper case", codes.InvalidArgument, "registry.test/BusyBox:1", "registry.test/BusyBox:1"),
		d.badPull("no name", codes.InvalidArgument, ""),
		d.badPull("digest cut short", codes.InvalidArgument, "registry.test/busybox@sha256:1234", "sha256:1234"),
		d.badPull("spaces", codes.InvalidArgument, "registry.test/busy box:1", "busy box"),
		d.badPull("host that does not exist", codes.Unknown, "127.0.0.1:1/busybox:1", "RegistryUnavailable", "127.0.0.1:1"),
		d.badPull("layer with another digest", codes.Unknown, "registry.test/flipped:1", flipped.Layers[0].String()),
		d.badPull("truncated layer", codes.Unknown, "registry.test/truncated:1", "registry.test/truncated:1"),
		d.badPull("layer that is no archive", codes.Unknown, "registry.test/notgzip:1", "gzip"),
		d.badPull("layer with other content", codes.Unknown, "registry.test/wrongdiff:1", absent.String()),
		d.badPull("manifest that is none", codes.Unknown, "registry.test/nomanifest:1", "manifest"),
		d.badPull("image for other machines", codes.Unknown, "registry.test/foreign:1", "pdp11"),
		d.badPull("path that leads out", codes.Unknown, "registry.test/hostile-dotdot:1", ".."),
		d.badPull("hard link that leads out", codes.Unknown, "registry.test/hostile-linkout:1", "link"),
		d.badPull("hard link to a file of the node", codes.Unknown, "registry.test/hostile-linkabs:1", "link"),
		d.badPull("file below a FIFO", codes.Unknown, "registry.test/hostile-fifodir:1", "f/below"),
		d.badPull("file below a loop", codes.Unknown, "registry.test/hostile-loop:1", "a/below"),
		d.badPull("device number out of range", codes.Unknown, "registry.test/hostile-baddev:1", "dev"),
		{"pull for an unknown handler", func() error {
			_, err := d.images.PullImage(d.context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: shell, RuntimeHandler: "kata"}})
			return err
		}, codes.InvalidArgument, []string{"runtime_handler", "kata"}},
	})
	if text := readFile(t, victim); text != "untouched" {
		t.Errorf("victim: %q", text)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside: %v, %v", entries, err)
	}
	check()
}

// Images that are valid and mean harm: what they ask for stays inside, or is
// refused when the container is created or started.
func TestImagesThatPointOutsideStayInside(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	r := registry(t)
	push := func(name string, config ocispec.ImageConfig, files ...testregistry.File) {
		image := busybox(t, testregistry.Layer{Files: files})
		config.Cmd = []string{"sh", "-c", "pwd -P; cat /etc/hostname; ls /proc/self/root/ >/dev/null && echo inside"}
		image.Config = config
		r.Push(name, "1", image)
		d.pull("registry.test/" + name + ":1")
	}
	link := func(name, to string) testregistry.File {
		return testregistry.File{Name: name, Type: tar.TypeSymlink, Link: to}
	}
	target := t.TempDir() // a folder of the node that must stay empty
	push("volume-up", ocispec.ImageConfig{Volumes: map[string]struct{}{"/../.." + target: {}, "../../etc": {}}})
	push("dev-link", ocispec.ImageConfig{}, link("dev", target))
	push("dev-up", ocispec.ImageConfig{}, link("dev", strings.Repeat("../", 20)+target[1:]))
	push("proc-link", ocispec.ImageConfig{}, link("proc", "/etc"))
	push("proc-file", ocispec.ImageConfig{}, testregistry.File{Name: "proc", Data: "x"})
	push("sys-link", ocispec.ImageConfig{}, link("sys", target))
	push("hostname-link", ocispec.ImageConfig{}, link("etc/hostname", target+"/hostname"))
	push("resolv-link", ocispec.ImageConfig{}, link("etc/resolv.conf", strings.Repeat("../", 20)+target[1:]+"/resolv.conf"))
	push("tmp-link", ocispec.ImageConfig{WorkingDir: "/work"}, link("work", target))
	push("null-link", ocispec.ImageConfig{}, testregistry.File{Name: "dev/"}, link("dev/null", "/etc/passwd"))
	p := d.runPod("p")
	for name, refused := range map[string]bool{
		"volume-up": false, "dev-link": false, "dev-up": false, "proc-link": true, "proc-file": true, "sys-link": false,
		"hostname-link": false, "resolv-link": false, "tmp-link": false, "null-link": false,
	} {
		t.Run(name, func(t *testing.T) {
			d.enter(t)
			before := count(t, d)
			config := containerConfig(name)
			config.Image.Image, config.Command = "registry.test/"+name+":1", nil
			c, err := p.try(config)
			if err == nil {
				err = c.tryStart()
			}
			if refused {
				if err == nil {
					t.Errorf("%s was started", name)
				} else {
					t.Log(err)
				}
			} else if err != nil {
				t.Error(err)
			} else if s := c.exited(); s.ExitCode != 0 || !strings.HasSuffix(readFile(t, c.log), "inside\n") {
				t.Errorf("exit code %d, log %s", s.ExitCode, readFile(t, c.log))
			}
			if c != nil {
				c.remove()
			}
			before.compare(t, "after "+name, func() census { return count(t, d) })
			if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
				t.Errorf("on the node: %v, %v", entries, err)
			}
		})
	}
	p.remove()
	for name := range map[string]bool{"volume-up": true, "dev-link": true, "dev-up": true, "proc-link": true, "proc-file": true, "sys-link": true, "hostname-link": true, "resolv-link": true, "tmp-link": true, "null-link": true} {
		if _, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: "registry.test/" + name + ":1"}}); err != nil {
			t.Error(err)
		}
	}
	check()
}
