package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cri-mini/image/manifest"
	"cri-mini/image/reference"
	"cri-mini/internal/leakcheck"
	"cri-mini/internal/testregistry"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// fixture is a registry, a folder of hosts files and a client that reads it.
type fixture struct {
	t      *testing.T
	r      *testregistry.Registry
	config string
	log    *bytes.Buffer
	client *Client
}

func newFixture(t *testing.T, o testregistry.Options) *fixture {
	t.Helper()
	f := &fixture{t: t, r: testregistry.New(o), config: t.TempDir(), log: &bytes.Buffer{}}
	t.Cleanup(f.r.Close)
	if o.TLS {
		if err := f.r.Trust(f.config); err != nil {
			t.Fatal(err)
		}
	}
	f.client = New(Options{
		ConfigDir:   f.config,
		Logger:      slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Window:      300 * time.Millisecond,
		MinProgress: 64,
		RetryDelay:  time.Millisecond,
	})
	return f
}

func (f *fixture) hosts(domain, text string) {
	f.t.Helper()
	dir := filepath.Join(f.config, domain)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// open opens a name of the fixture's registry, such as "app:1".
func (f *fixture) open(name string, auth *Auth) *Repository {
	f.t.Helper()
	return f.openName(f.r.Host()+"/"+name, auth)
}

func (f *fixture) name(name string) reference.Name {
	f.t.Helper()
	n, err := reference.Parse(f.r.Host() + "/" + name)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fixture) openName(name string, auth *Auth) *Repository {
	f.t.Helper()
	n, err := reference.Parse(name)
	if err != nil {
		f.t.Fatal(err)
	}
	repo, err := f.client.Repository(n, auth)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(repo.Close)
	return repo
}

var platform = manifest.Platform{OS: "linux", Architecture: "amd64", Variant: "v1"}

// fetchAll resolves a name and fetches all layers.
func fetchAll(ctx context.Context, repo *Repository) (Resolved, [][]byte, error) {
	resolved, err := repo.Resolve(ctx, platform)
	if err != nil {
		return resolved, nil, err
	}
	var layers [][]byte
	for _, l := range resolved.Manifest.Layers {
		data, err := fetch(ctx, repo, l)
		if err != nil {
			return resolved, layers, err
		}
		layers = append(layers, data)
	}
	return resolved, layers, nil
}

func fetch(ctx context.Context, repo *Repository, d ocispec.Descriptor) ([]byte, error) {
	var data []byte
	err := repo.Fetch(ctx, d, func(r io.Reader) (err error) {
		data, err = io.ReadAll(r)
		return err
	})
	return data, err
}

func amd64() ocispec.Platform { return ocispec.Platform{OS: "linux", Architecture: "amd64"} }

// simple is a small image with one layer of about 100 kB that does not
// compress.
func simple() testregistry.Image {
	noise := make([]byte, 100_000)
	rand.Read(noise)
	return testregistry.Image{
		Layers:   []testregistry.Layer{testregistry.Files(map[string]string{"etc/": "", "etc/noise": string(noise)})},
		Platform: amd64(),
	}
}
