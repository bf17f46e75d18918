package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cri-mini/hack/tools/vm/wire"
)

func TestMirrorIsFoundInTheSourcesOfThisMachine(t *testing.T) {
	for name, test := range map[string]struct{ file, text, want string }{
		"new form": {"sources.list.d/debian.sources", `Types: deb
# a comment
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
`, "http://mirror.test/debian"},
		"new form, security first, value on the next line": {"sources.list.d/a.sources", `Types: deb
URIs: http://mirror.test/debian-security
Suites: trixie-security

Types: deb
URIs:
 http://mirror.test/debian
Suites:
 trixie
`, "http://mirror.test/debian"},
		"old form":               {"sources.list", "# deb http://old.test/debian sid main\ndeb http://mirror.test/debian bookworm main\n", "http://mirror.test/debian"},
		"old form with options":  {"sources.list", "deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian sid main\n", "http://mirror.test/debian"},
		"sources alone":          {"sources.list", "deb-src http://mirror.test/debian bookworm main\n", ""},
		"only someone else's":    {"sources.list.d/other.list", "deb https://other.test/apt tools main\n", ""},
		"another distribution's": {"sources.list", "deb http://archive.test/ubuntu noble main\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			file := filepath.Join(etc, test.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := machineMirror(etc)
			if got != test.want || (err != nil) != (test.want == "") {
				t.Errorf("mirror %q, error %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	const dependencies = `kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko
kernel/fs/jbd2/jbd2.ko:
kernel/drivers/block/virtio-blk.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio-pci-modern.ko kernel/drivers/virtio/virtio.ko
`
	var got []string
	for _, file := range loadOrder(dependencies, []string{"virtio_pci", "virtio_blk", "built_in", "ext4"}) {
		got = append(got, filepath.Base(file))
	}
	const want = "virtio.ko virtio-pci-modern.ko virtio_pci.ko virtio-blk.ko mbcache.ko jbd2.ko crc16.ko ext4.ko"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("order %s, want %s", s, want)
	}
}

func TestPackagesAreReadFromWhatAptSays(t *testing.T) {
	got, err := parseURIs("'http://mirror.test/pool/libc6_2.36_amd64.deb' libc6_2.36_amd64.deb 2758000 SHA256:00\n'http://mirror.test/pool/m.deb' mawk_1.3_amd64.deb 1\n")
	if want := []string{"libc6", "mawk"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("packages %q, %v; want %q", got, err, want)
	}
	if _, err := parseURIs("E:\n"); err == nil || !strings.Contains(err.Error(), `"E:\n"`) {
		t.Errorf("error %v, want one that quotes the line", err)
	}
}

// Held against another program's reading of the format.
func TestInitialFileSystemIsReadByCpio(t *testing.T) {
	cpioProgram, err := tool("cpio", "cpio")
	if err != nil {
		t.Skip(err)
	}
	guest := filepath.Join(t.TempDir(), "guest")
	if err := os.WriteFile(guest, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	modules := t.TempDir()
	if err := os.WriteFile(modules+"/00-a.ko", []byte("module"), 0o644); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := writeInitial(&archive, guest, modules); err != nil {
		t.Fatal(err)
	}
	list := exec.Command(cpioProgram, "--list", "--quiet")
	list.Stdin = &archive
	out, err := list.CombinedOutput()
	if want := "dev\nmodules\ndev/console\ninit\nmodules/00-a.ko\n"; err != nil || string(out) != want {
		t.Errorf("cpio lists %q, %v; want %q", out, err, want)
	}
}

func TestResultsStayBelowTheirDirectory(t *testing.T) {
	for _, name := range []string{"../evil", "/../../evil", "link/evil"} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: 1}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("x"))
		w.Close()
		top := t.TempDir()
		dir := filepath.Join(top, "a/b")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../..", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := readResults(&archive, dir); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(filepath.Join(top, "evil")); err == nil {
			t.Errorf("%s was written outside", name)
		}
	}
}

func TestPayloadNamesAreTheLastElementOrAsAsked(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"d/one": "1", "two": "2"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	if err := writePayload(&archive, []string{dir + "/d", dir + "/two:bin/zwei"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&archive); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, header.Name)
	}
	if want := []string{"d", "d/one", "bin/zwei"}; !slices.Equal(got, want) {
		t.Errorf("payload %q, want %q", got, want)
	}
	if err := writePayload(io.Discard, []string{dir + "/none"}); err == nil || !strings.Contains(err.Error(), dir+"/none") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

func TestOutputIsFollowedToTheEnd(t *testing.T) {
	say := func(reports ...wire.Report) *json.Decoder {
		var text bytes.Buffer
		for _, r := range reports {
			if err := json.NewEncoder(&text).Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		return json.NewDecoder(&text)
	}
	var out, errs strings.Builder
	status, err := follow(say(wire.Report{Stdout: []byte("a")}, wire.Report{Stderr: []byte("b")}, wire.Report{Stdout: []byte("c")}, wire.Report{Ended: true, Status: 7}), &out, &errs)
	if status != 7 || err != nil || out.String() != "ac" || errs.String() != "b" {
		t.Errorf("status %d, %v, output %q, %q", status, err, out.String(), errs.String())
	}
	if _, err := follow(say(wire.Report{Stdout: []byte("a")}), io.Discard, io.Discard); err == nil || err.Error() != "the machine ended by itself" {
		t.Errorf("guest vanishes: %v", err)
	}
	if _, err := follow(say(wire.Report{Error: "no disk"}), io.Discard, io.Discard); err == nil || err.Error() != "guest: no disk" {
		t.Errorf("guest gives up: %v", err)
	}
}
