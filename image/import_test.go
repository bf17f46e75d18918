package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cri-mini/image/layer"
	"cri-mini/internal/testregistry"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func folderWith(t *testing.T, name, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files are the contents of an archive by name.
type files map[string][]byte

func (f files) add(v any) ocispec.Descriptor {
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			panic(err)
		}
	}
	d := digest.FromBytes(data)
	f["blobs/sha256/"+d.Encoded()] = data
	return ocispec.Descriptor{Digest: d, Size: int64(len(data))}
}

// layout makes an OCI image layout with one image per name.
func layout(names ...string) files {
	f := files{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for i, name := range names {
		archive := text("a", "image "+itoa(i)).Archive()
		l := f.add(archive)
		l.MediaType = ocispec.MediaTypeImageLayer
		config := f.add(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.Digest}}})
		config.MediaType = ocispec.MediaTypeImageConfig
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{l}}
		m.SchemaVersion = 2
		desc := f.add(m)
		desc.MediaType = m.MediaType
		if name != "" {
			desc.Annotations = map[string]string{"io.containerd.image.name": name}
		}
		index.Manifests = append(index.Manifests, desc)
	}
	f["index.json"], _ = json.Marshal(index)
	return f
}

// dockerSave makes an archive as "docker save" did for years.
func dockerSave(tags ...string) files {
	archive := text("a", "image 0").Archive()
	config, _ := json.Marshal(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(archive)}}})
	list, _ := json.Marshal([]any{map[string]any{"Config": "c.json", "RepoTags": tags, "Layers": []string{"l/layer.tar"}}})
	return files{"c.json": config, "l/layer.tar": archive, "manifest.json": list}
}

func (f files) tar() []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		t.WriteHeader(&tar.Header{Name: "./" + name, Mode: 0o644, Size: int64(len(f[name]))})
		t.Write(f[name])
	}
	t.Close()
	return b.Bytes()
}

func (f files) folder(t *testing.T) string {
	dir := t.TempDir()
	for name, data := range f {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func file(t *testing.T, name string, data []byte) string {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func gz(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

func zst(data []byte) []byte {
	z, _ := zstd.NewWriter(nil)
	defer z.Close()
	return z.EncodeAll(data, nil)
}

func TestImportOfArchives(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		const name = "registry.test/imported:1"
		for kind, path := range map[string]string{
			"layout folder": layout(name).folder(t),
			"layout tar":    file(t, "a.tar", layout(name).tar()),
			"layout tar.gz": file(t, "a.tar.gz", gz(layout(name).tar())),
			"docker tar":    file(t, "d.tar", dockerSave(name).tar()),
			"docker zst":    file(t, "d.tar.zst", zst(dockerSave(name).tar())),
			"docker folder": dockerSave(name).folder(t),
		} {
			t.Run(kind, func(t *testing.T) {
				f := newFixtureIn(t, form, testregistry.Options{})
				images, err := f.ImportArchive(t.Context(), path, "")
				if err != nil || len(images) != 1 || !reflect.DeepEqual(images[0].Tags, []string{name}) {
					t.Fatalf("ImportArchive = %+v, %v", images, err)
				}
				if got := f.read(images[0].ID, "a"); got != "image 0" {
					t.Errorf("file says %q", got)
				}
				if isLayout := strings.HasPrefix(kind, "layout"); isLayout != (len(images[0].Digests) == 1) {
					t.Errorf("Digests %q", images[0].Digests)
				}
				again, err := f.ImportArchive(t.Context(), path, "registry.test/other")
				if err != nil || again[0].ID != images[0].ID || !slices.Contains(again[0].Tags, "registry.test/other:latest") {
					t.Errorf("with a name: %+v, %v", again, err)
				}
				f.Remove(name)
				f.wantEmpty(kind)
			})
		}
	})
}

func TestImportFromAStream(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	images, err := f.ImportStream(t.Context(), bytes.NewReader(gz(layout("registry.test/a:1", "registry.test/b:1").tar())), "")
	if err != nil || len(images) != 2 {
		t.Fatalf("ImportStream = %v, %v", images, err)
	}
	if f.read(images[1].ID, "a") != "image 1" {
		t.Error("wrong content")
	}
}

func TestImportChoosesThePlatform(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	l := layout("", "")
	var index ocispec.Index
	if err := json.Unmarshal(l["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	index.Manifests[0].Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	index.Manifests[1].Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	l["index.json"], _ = json.Marshal(index)
	images, err := f.ImportArchive(t.Context(), l.folder(t), "registry.test/x")
	if err != nil || len(images) != 1 || f.read(images[0].ID, "a") != "image 1" {
		t.Fatalf("ImportArchive = %v, %v", images, err)
	}
}

func TestBadArchivesAreRefusedAndLeaveNothing(t *testing.T) {
	const n = "registry.test/x:1"
	flipped := layout(n)
	for name := range flipped {
		if strings.HasPrefix(name, "blobs/") && bytes.Contains(flipped[name], []byte("image 0")) {
			flipped[name][len(flipped[name])-1] ^= 1
		}
	}
	missing := layout(n)
	for name := range missing {
		if bytes.Contains(missing[name], []byte("image 0")) {
			delete(missing, name)
		}
	}
	wrongLayer := dockerSave(n)
	wrongLayer["l/layer.tar"] = text("a", "another").Archive()
	escaping := dockerSave(n)
	escaping["manifest.json"] = []byte(`[{"Config":"../../../../etc/passwd","Layers":[]}]`)
	badName := layout("registry.test/UPPER")
	for kind, test := range map[string]struct{ path, name, want string }{
		"nothing known":   {file(t, "x.tar", files{"x": nil}.tar()), "", "neither"},
		"no tar":          {file(t, "x", []byte(strings.Repeat("hello", 1000))), "", "archive"},
		"empty folder":    {t.TempDir(), "", "neither"},
		"missing file":    {"/nowhere/x.tar", "", "/nowhere/x.tar"},
		"cut":             {file(t, "x.tar", layout(n).tar()[:2000]), "", "archive"},
		"blob flipped":    {flipped.folder(t), "", "digest"},
		"blob missing":    {missing.folder(t), "", "no such file"},
		"bad index":       {files{"oci-layout": nil, "index.json": []byte("{")}.folder(t), "", "index.json"},
		"no image":        {layout().folder(t), "", "no image"},
		"docker layer":    {file(t, "x.tar", wrongLayer.tar()), "", "layer 1 of 1"},
		"escaping config": {escaping.folder(t), "", "config"},
		"bad name inside": {badName.folder(t), "", "UPPER"},
		"bad name":        {layout(n).folder(t), "UPPER", "UPPER"},
		"digest as name":  {layout(n).folder(t), "x@" + digest.FromString("x").String(), "tag"},
		"one name of two": {layout(n, "registry.test/y").folder(t), "z", "2 images"},
	} {
		t.Run(kind, func(t *testing.T) {
			f := newFixture(t, testregistry.Options{})
			images, err := f.ImportArchive(t.Context(), test.path, test.name)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("ImportArchive = %v, %v; want an error with %q", images, err, test.want)
			}
			f.wantEmpty(kind)
		})
	}
}

func FuzzTarArchive(f *testing.F) {
	f.Add(layout("registry.test/x:1").tar())
	f.Add(dockerSave("registry.test/x:1").tar())
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readTarArchive(bytes.NewReader(data))
		if err != nil {
			return
		}
		s := &Store{platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
		found, err := s.imagesIn(a)
		if err == nil && len(found) == 0 {
			t.Fatal("neither an image nor an error")
		}
	})
}

// rootfs makes a folder with one of everything.
func rootfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := func(n string) string { return filepath.Join(dir, n) }
	err := errors.Join(
		os.Mkdir(path("bin"), 0o755),
		os.WriteFile(path("bin/su"), []byte("su"), 0o755),
		os.Chown(path("bin/su"), 3, 4),
		os.Chmod(path("bin/su"), 0o755|os.ModeSetuid),
		os.Link(path("bin/su"), path("bin/link")),
		os.Symlink("/etc/../bin/su", path("bin/sym")),
		os.Mkdir(path("tmp"), 0o777|os.ModeSticky),
		os.Chmod(path("tmp"), 0o777|os.ModeSticky),
		unix.Mkfifo(path("fifo"), 0o600),
		unix.Mknod(path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Setxattr(path("bin"), "user.color", []byte("blue"), 0),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestImportRootfsKeepsEverything(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	dir := rootfs(t)
	var packed bytes.Buffer
	if err := tarFolder(t.Context(), dir, &packed); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Cmd: []string{"/bin/su"}, Env: []string{"A=b"}, User: "3:4", Volumes: []string{"/tmp"}, Labels: map[string]string{"l": "v"}}
	var id string
	for kind, path := range map[string]string{
		"folder": dir, "tar": file(t, "r.tar", packed.Bytes()), "tar.gz": file(t, "r.tgz", gz(packed.Bytes())), "tar.zst": file(t, "r.zst", zst(packed.Bytes())),
	} {
		img, err := f.ImportRootfs(t.Context(), path, "registry.test/rootfs", cfg)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if id == "" {
			id = img.ID
		}
		if img.ID != id || !reflect.DeepEqual(img.Config, cfg) || !reflect.DeepEqual(img.Tags, []string{"registry.test/rootfs:latest"}) {
			t.Errorf("%s: %+v; want ID %s and the config given", kind, img, id)
		}
	}
	layers, err := f.Layers(id)
	if err != nil || len(layers) != 1 {
		t.Fatalf("Layers = %v, %v", layers, err)
	}
	compareTrees(t, dir, layers[0].Path)
	f.Remove(id)
	f.wantEmpty("in the end")
}

func compareTrees(t *testing.T, want, got string) {
	t.Helper()
	names := []string{"bin", "bin/su", "bin/link", "bin/sym", "tmp", "fifo", "null"}
	for _, n := range names {
		var w, g syscall.Stat_t
		if err := errors.Join(syscall.Lstat(filepath.Join(want, n), &w), syscall.Lstat(filepath.Join(got, n), &g)); err != nil {
			t.Error(err)
			continue
		}
		if w.Mode != g.Mode || w.Uid != g.Uid || w.Gid != g.Gid || w.Rdev != g.Rdev || (w.Mode&syscall.S_IFMT != syscall.S_IFDIR && w.Nlink != g.Nlink) {
			t.Errorf("%s: mode %o owner %d:%d device %d links %d; want %o %d:%d %d %d", n, g.Mode, g.Uid, g.Gid, g.Rdev, g.Nlink, w.Mode, w.Uid, w.Gid, w.Rdev, w.Nlink)
		}
	}
	if target, err := os.Readlink(filepath.Join(got, "bin/sym")); err != nil || target != "/etc/../bin/su" {
		t.Errorf("link leads to %q, %v", target, err)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(got, "bin"), "user.color", value); err != nil || string(value[:n]) != "blue" {
		t.Errorf("attribute is %q, %v", value, err)
	}
}

func TestImportRootfsStaysOnOneFileSystem(t *testing.T) {
	dir := rootfs(t)
	if err := unix.Mount("tmpfs", filepath.Join(dir, "tmp"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "tmp"), unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "tmp/secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := tarFolder(t.Context(), dir, &packed); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(&packed); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil || h.Name == "tmp/secret" {
			t.Fatalf("entry %+v, %v", h, err)
		}
	}
}

func TestProgramBecomesAnImage(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\nfunc main() { println(\"hello\") }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "hello")
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f := newFixture(t, testregistry.Options{})
	img, err := f.ImportRootfs(t.Context(), program, "hello", Config{Cmd: []string{"arg"}})
	if err != nil || !reflect.DeepEqual(img.Config.Entrypoint, []string{"/hello"}) || !reflect.DeepEqual(img.Config.Cmd, []string{"arg"}) {
		t.Fatalf("ImportRootfs = %+v, %v", img, err)
	}
	layers, err := f.Layers(img.ID)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(layers[0].Path)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the image has %v, %v; want one file", entries, err)
	}
	if out, err := exec.Command(filepath.Join(layers[0].Path, "hello")).CombinedOutput(); err != nil || string(out) != "hello\n" {
		t.Fatalf("it says %q, %v", out, err)
	}
}

func TestBadRootfsIsRefusedAndLeavesNothing(t *testing.T) {
	other := elf.EM_AARCH64
	if runtime.GOARCH == "arm64" {
		other = elf.EM_X86_64
	}
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	head[4], head[5], head[6], head[16], head[18], head[20] = 2, 1, 1, byte(elf.ET_EXEC), byte(other), 1
	interp, err := filepath.Glob("/bin/sh")
	if err != nil || len(interp) == 0 {
		t.Fatal("no /bin/sh here")
	}
	for kind, test := range map[string]struct {
		path, name string
		cfg        Config
		want       string
	}{
		"missing":         {"/nowhere", "", Config{}, "/nowhere"},
		"no archive":      {file(t, "x", []byte(strings.Repeat("hello", 1000))), "", Config{}, "x"},
		"dynamic program": {interp[0], "", Config{}, "not static"},
		"other machine":   {file(t, "x", head), "", Config{}, "program is for"},
		"cut program":     {file(t, "x", []byte(elf.ELFMAG)), "", Config{}, "program"},
		"bad name":        {rootfs(t), "UPPER", Config{}, "UPPER"},
		"bad user":        {rootfs(t), "", Config{User: "2147483648"}, "2147483648"},
		"escaping":        {file(t, "x", testregistry.Layer{Files: []testregistry.File{{Name: "../x", Data: "x"}}}.Archive()), "", Config{}, "x"},
	} {
		t.Run(kind, func(t *testing.T) {
			f := newFixture(t, testregistry.Options{})
			if _, err := f.ImportRootfs(t.Context(), test.path, test.name, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("ImportRootfs = %v, want an error with %q", err, test.want)
			}
			f.wantEmpty(kind)
		})
	}
}

func TestBorrowedFolderIsUsedInPlace(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	dir := rootfs(t)
	img, err := f.BorrowRootfs(t.Context(), dir, "a")
	if err != nil || !img.Pinned || img.Size == 0 {
		t.Fatalf("BorrowRootfs = %+v, %v", img, err)
	}
	other, err := f.BorrowRootfs(t.Context(), dir, "b")
	if err != nil || other.ID == img.ID {
		t.Fatalf("another borrower: %+v, %v", other, err)
	}
	layers, err := f.Layers(img.ID)
	if want := []Layer{{Path: dir, Form: layer.Directory}}; err != nil || !reflect.DeepEqual(layers, want) {
		t.Fatalf("Layers = %v, %v; want %v", layers, err, want)
	}
	if err := errors.Join(f.Hold(img.ID, "one"), f.Remove(other.ID)); err != nil {
		t.Fatal(err)
	}
	f.Release("one")
	f.wantEmpty("after Release")
	if _, err := os.Stat(filepath.Join(dir, "bin/su")); err != nil {
		t.Fatalf("the folder lost something: %v", err)
	}
	if _, err := f.BorrowRootfs(t.Context(), "/nowhere", "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("BorrowRootfs(/nowhere) = %v", err)
	}
}

func TestBorrowedImageGoesWithItsHolderEvenAfterAKill(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	dir := rootfs(t)
	archive := filepath.Join(t.TempDir(), "rootfs.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{dir, archive} {
		kept, err := f.ImportRootfs(t.Context(), path, "registry.test/kept", Config{})
		if err != nil {
			t.Fatal(err)
		}
		img, err := f.BorrowRootfs(t.Context(), path, "a")
		if err != nil {
			t.Fatal(err)
		}
		f.restart() // killed while a container held it, which went on
		if err := f.Hold(img.ID, "one"); err != nil {
			t.Fatal(err)
		}
		f.collect()
		if _, err := f.Get(img.ID); err != nil {
			t.Errorf("%s: held, and yet collected: %v", path, err)
		}
		f.Release("one")
		if _, err := f.Get(img.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: after Release: %v, want ErrNotFound", path, err)
		}
		if _, err := f.BorrowRootfs(t.Context(), path, "b"); err != nil {
			t.Fatal(err)
		}
		f.restart() // killed before anybody held it
		f.collect()
		if all := f.List(); len(all) != 1 || all[0].ID != kept.ID {
			t.Errorf("%s: after a kill: %+v, want the imported image only", path, all)
		}
		if err := f.Remove("registry.test/kept"); err != nil {
			t.Fatal(err)
		}
	}
	f.wantEmpty("at the end")
}
