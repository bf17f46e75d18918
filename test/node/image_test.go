package node

import (
	"archive/tar"
	"debug/elf"
	"os"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
	"cri-mini/internal/testtool"
)

var registries struct {
	sync.Mutex
	shared *testregistry.Registry
	ports  map[int]bool
}

// registry is the one that all nodes know as registry.test.
func registry(t *testing.T) *testregistry.Registry {
	t.Helper()
	registries.Lock()
	shared := registries.shared
	registries.Unlock()
	if shared == nil {
		shared = newRegistry(testregistry.Options{})
		registries.Lock()
		registries.shared = shared
		registries.Unlock()
		shared.Push("busybox", "1", busybox(t))
	}
	return shared
}

func newRegistry(o testregistry.Options) *testregistry.Registry {
	r := testregistry.New(o)
	registries.Lock()
	defer registries.Unlock()
	if registries.ports == nil {
		registries.ports = map[int]bool{}
	}
	registries.ports[portOf(r.Host())] = true
	return r
}

func isRegistry(port int) bool {
	registries.Lock()
	defer registries.Unlock()
	return registries.ports[port]
}

// applets are the commands of busybox that the images have.
const applets = "sh cat sleep echo ls id ps head nc wget httpd true false mkdir ln mv rm touch stat stty printf test seq mount kill readlink env tr wc"

const accounts = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"

var baseLayer = sync.OnceValues(func() (testregistry.Layer, error) {
	var layer testregistry.Layer
	path, err := testtool.Find("busybox", "busybox-static")
	if err != nil {
		return layer, err
	}
	binary, err := elf.Open(path)
	if err != nil {
		return layer, err
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP { // it needs libraries that the image has not
			return layer, &testtool.Missing{Tool: "static busybox", Package: "busybox-static"}
		}
	}
	shell, err := os.ReadFile(path)
	if err != nil {
		return layer, err
	}
	actor, err := os.ReadFile(program("actor"))
	if err != nil {
		return layer, err
	}
	layer.Files = []testregistry.File{
		{Name: "bin/"}, {Name: "etc/"}, {Name: "home/"}, {Name: "tmp/", Mode: 0o1777},
		{Name: "etc/passwd", Data: accounts},
		{Name: "etc/group", Data: "root:x:0:\nuser:x:1000:\n"},
		{Name: "etc/motd", Data: "hello"},
		testregistry.Program("bin/busybox", shell),
		testregistry.Program("bin/actor", actor),
	}
	for applet := range strings.FieldsSeq(applets) {
		layer.Files = append(layer.Files, testregistry.File{Name: "bin/" + applet, Type: tar.TypeLink, Link: "bin/busybox"})
	}
	return layer, nil
})

// busybox is an image with a shell and the actor; more layers go on top.
func busybox(t *testing.T, more ...testregistry.Layer) testregistry.Image {
	t.Helper()
	layer, err := baseLayer()
	if missing := (*testtool.Missing)(nil); err != nil {
		if e, ok := err.(*testtool.Missing); ok {
			missing = e
		}
		if missing != nil {
			t.Skip(missing)
		}
		t.Fatal(err)
	}
	return testregistry.Image{Layers: append([]testregistry.Layer{layer}, more...), Config: ocispec.ImageConfig{Cmd: []string{"sleep", "1000"}}}
}

// pull gets an image of the shared registry.
func (d *daemon) pull(name string) string {
	d.t.Helper()
	answer, err := d.images.PullImage(d.context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: name}})
	if err != nil {
		d.t.Fatalf("pull %s: %v", name, err)
	}
	return answer.ImageRef
}

// shell is the image of most containers.
const shell = "registry.test/busybox:1"
