package image

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cri-mini/image/layer"
	"cri-mini/image/registry"
	"cri-mini/internal/leakcheck"
	"cri-mini/internal/testregistry"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == pullAndDie {
		pullUntilKilled(os.Args[2], os.Args[3], os.Args[4])
	}
	if len(os.Args) == 5 && os.Args[1] == repairAndDie {
		repairUntilKilled(os.Args[2], os.Args[3], os.Args[4])
	}
	leakcheck.Main(m)
}

// fixture is a store with a registry to pull from.
type fixture struct {
	*Store
	t    *testing.T
	r    *testregistry.Registry
	root string
	form string
	log  *bytes.Buffer
}

func newFixture(t *testing.T, o testregistry.Options) *fixture {
	t.Helper()
	return newFixtureIn(t, layer.Directory, o)
}

// inBothForms runs a test for layers as folders and, if the kernel can mount
// them, as EROFS images.
func inBothForms(t *testing.T, test func(t *testing.T, form string)) {
	for _, form := range []string{layer.Directory, layer.Erofs} {
		t.Run(form, func(t *testing.T) {
			var missing *layer.ErrUnsupported
			if err := layer.Probe(t.TempDir()); form == layer.Erofs && errors.As(err, &missing) {
				t.Skip(err)
			}
			test(t, form)
		})
	}
}

func newFixtureIn(t *testing.T, form string, o testregistry.Options) *fixture {
	t.Helper()
	f := &fixture{t: t, r: testregistry.New(o), root: t.TempDir(), form: form, log: &bytes.Buffer{}}
	t.Cleanup(f.r.Close)
	f.open()
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	s, err := Open(f.root, Options{LayerForm: f.form, Logger: slog.New(slog.NewTextHandler(f.log, nil))})
	if err != nil {
		f.t.Fatal(err)
	}
	config := f.t.TempDir()
	if f.r.CA() != nil {
		if err := f.r.Trust(config); err != nil {
			f.t.Fatal(err)
		}
	}
	s.client = registry.New(registry.Options{ConfigDir: config, RetryDelay: time.Millisecond})
	f.Store = s
}

// restart opens the store again, as after the end of the process.
func (f *fixture) restart() {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

func (f *fixture) name(n string) string { return f.r.Host() + "/" + n }

func (f *fixture) pull(n string) Image {
	f.t.Helper()
	img, err := f.Pull(f.t.Context(), f.name(n), PullOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return img
}

func (f *fixture) collect() {
	f.t.Helper()
	if err := f.Collect(); err != nil {
		f.t.Fatal(err)
	}
}

// wantEmpty holds that nothing is left: in memory, in the books or on disk.
func (f *fixture) wantEmpty(what string) {
	f.t.Helper()
	f.Close() // lets work in the background end
	if bytes, inodes := f.Usage(); bytes != 0 || inodes != 0 {
		f.t.Errorf("%s: usage is %d bytes, %d inodes, want none", what, bytes, inodes)
	}
	f.mu.Lock()
	if len(f.images)+len(f.names)+len(f.owners)+len(f.layers)+len(f.uses)+len(f.flights)+len(f.replaced) != 0 {
		f.t.Errorf("%s: memory still has %v %v %v %v %v %v %v", what, f.images, f.names, f.owners, f.layers, f.uses, f.flights, f.replaced)
	}
	f.mu.Unlock()
	if left := f.filesOnDisk(); len(left) > 0 {
		f.t.Errorf("%s: left on disk: %q", what, left)
	}
	f.open()
}

// filesOnDisk lists everything below the root but its fixed folders.
func (f *fixture) filesOnDisk() []string {
	f.t.Helper()
	var left []string
	err := filepath.WalkDir(f.root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(f.root, path)
		switch rel {
		case ".", "records", "tmp", "layers", "layers/layers", "layers/unfinished", "layers/replaced", "layers/removed":
			return err
		}
		left = append(left, rel)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return left
}

// read reads a file through the layers of an image, the top one first.
func (f *fixture) read(imageID, name string) string {
	f.t.Helper()
	layers, err := f.Layers(imageID)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := len(layers) - 1; i >= 0; i-- {
		if data, err := f.readLayer(layers[i], name); err == nil {
			return string(data)
		}
	}
	f.t.Errorf("image %s has no file %s", imageID, name)
	return ""
}

func (f *fixture) readLayer(l Layer, name string) ([]byte, error) {
	f.t.Helper()
	if l.Form == layer.Directory {
		return os.ReadFile(filepath.Join(l.Path, name))
	}
	dir := f.t.TempDir()
	if err := unix.Mount(l.Path, dir, "erofs", unix.MS_RDONLY, ""); err != nil {
		f.t.Fatalf("mount %s: %v", l.Path, err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			f.t.Error(err)
		}
	}()
	return os.ReadFile(filepath.Join(dir, name))
}

func image(layers ...testregistry.Layer) testregistry.Image {
	return testregistry.Image{
		Layers:   layers,
		Config:   ocispec.ImageConfig{Cmd: []string{"/bin/hello"}, Env: []string{"A=b"}, WorkingDir: "/srv"},
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
	}
}

// text is a layer with one file.
func text(name, content string) testregistry.Layer {
	return testregistry.Files(map[string]string{name: content})
}

func short(id string) string { return strings.TrimPrefix(id, "sha256:")[:13] }
