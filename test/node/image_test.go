package node

import (
	"os"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
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

// baseLayer has a shell and the actor.
var baseLayer = sync.OnceValues(func() (testregistry.Layer, error) {
	layer, err := testregistry.Busybox()
	if err != nil {
		return layer, err
	}
	actor, err := os.ReadFile(enclosure.Program("actor"))
	if err != nil {
		return layer, err
	}
	layer.Files = append(layer.Files, testregistry.Program("bin/actor", actor))
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

// busyboxWith is busybox as another image, with a config of its own.
func busyboxWith(t *testing.T, config ocispec.ImageConfig) testregistry.Image {
	t.Helper()
	image := busybox(t)
	image.Config = config
	return image
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
