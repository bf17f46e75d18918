package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// catalog makes folders with files: "etc/a.json" to its text.
func catalog(t *testing.T, files map[string]string) (*Catalog, string, *bytes.Buffer) {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(root, name), text)
	}
	log := new(bytes.Buffer)
	return New([]string{root + "/etc", root + "/run"}, slog.New(slog.NewTextHandler(log, nil))), root, log
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// describe is a spec file whose one device d sets V to value.
func describe(value string) string {
	return `{"cdiVersion": "0.3.0", "kind": "v.com/c", "devices": [{"name": "d", "containerEdits": {"env": ["V=` + value + `"]}}]}`
}

func number(n uint32) *uint32 { return &n }

const everything = `
cdiVersion: 1.1.0
kind: v.com/gpu
annotations: {a: b}
containerEdits:
  env: [ALL=1, EMPTY=]
  mounts:
  - {hostPath: /usr/lib/x.so, containerPath: /usr/lib/../lib/x.so, options: [ro, nosuid, nodev, noexec, bind, rprivate]}
devices:
- name: "0"
  annotations: {a: b}
  containerEdits:
    env: [ONE=a=b]
    additionalGids: [44, 0, 45]
    deviceNodes:
    - {path: /dev/x/null, hostPath: /dev/null, permissions: r, uid: 7, gid: 8, fileMode: 0640}
    - {path: /dev/zero}
    - {path: /dev/made, type: b, major: 200, minor: 3, permissions: none}
    - {path: /dev/fifo, type: p, fileMode: 384}
    - {path: /dev/raw, hostPath: /dev/full, type: u, major: 1, minor: 7}
    mounts:
    - {hostPath: tmpfs, containerPath: /scratch, type: tmpfs, options: [size=64k, mode=0700, nosuid]}
    - {hostPath: /run/x, containerPath: /run/x, type: bind, options: [rbind, rslave, rro]}
- name: all
  containerEdits: {}
`

func TestAllThatCanBeAskedForIsUnderstood(t *testing.T) {
	c, _, _ := catalog(t, map[string]string{"etc/v.yaml": everything})
	got, err := c.Find([]string{"v.com/gpu=0", "v.com/gpu=all", "v.com/gpu=0"})
	want := Edits{
		Env: []string{"ALL=1", "EMPTY=", "ONE=a=b"},
		Devices: []spec.Device{
			{HostPath: "/dev/null", ContainerPath: "/dev/x/null", Permissions: "r", Mode: number(0o640), UID: number(7), GID: number(8)},
			{HostPath: "/dev/zero", ContainerPath: "/dev/zero", Permissions: "rwm"},
			{HostPath: "/dev/made", ContainerPath: "/dev/made", Kind: spec.BlockDevice, Major: 200, Minor: 3},
			{HostPath: "/dev/fifo", ContainerPath: "/dev/fifo", Permissions: "rwm", Kind: spec.Pipe, Mode: number(0o600)},
			{HostPath: "/dev/full", ContainerPath: "/dev/raw", Permissions: "rwm", Kind: spec.CharacterDevice, Major: 1, Minor: 7, Mode: number(0o666)},
		},
		Mounts: []spec.Mount{
			{Kind: spec.BindMount, Source: "/usr/lib/x.so", Target: "/usr/lib/x.so", Propagation: spec.Private, ReadOnly: true, NoSuid: true, NoDev: true, NoExec: true, Alone: true},
			{Kind: spec.TmpfsMount, Target: "/scratch", Size: 65536, Mode: 0o700, NoSuid: true},
			{Kind: spec.BindMount, Source: "/run/x", Target: "/run/x", Propagation: spec.HostToContainer, ReadOnly: true, RecursiveReadOnly: true},
		},
		Groups: []uint32{44, 45},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("%v\n%s\nwant\n%s", err, g, w)
	}
}

func TestJSONWithTabsIsRead(t *testing.T) {
	c, _, _ := catalog(t, map[string]string{"etc/v.json": "{\n\t\"cdiVersion\": \"0.5.0\",\n\t\"kind\": \"v.com/c\",\n\t\"devices\": [\n\t\t{\n\t\t\t\"name\": \"d\",\n\t\t\t\"containerEdits\": {\n\t\t\t\t\"env\": [\n\t\t\t\t\t\"A=\\u00e4\"\n\t\t\t\t]\n\t\t\t}\n\t\t}\n\t]\n}\n"})
	if got, err := c.Find([]string{"v.com/c=d"}); err != nil || len(got.Env) != 1 || got.Env[0] != "A=ä" {
		t.Errorf("Find: %v, %v", got, err)
	}
}

func TestLaterFolderBeatsTheEarlierAndTwoInOneAreAConflict(t *testing.T) {
	c, root, _ := catalog(t, map[string]string{"etc/a.json": describe("etc"), "etc/ignored.yml": describe("yml"), "etc/a.json.tmp": describe("tmp")})
	value := func() string {
		e, err := c.Find([]string{"v.com/c=d"})
		if err != nil {
			return err.Error()
		}
		return e.Env[0]
	}
	if got := value(); got != "V=etc" {
		t.Errorf("with one folder: %s", got)
	}
	put(t, root+"/run/b.yaml", describe("run")) // the folder is new as well
	if got := value(); got != "V=run" {
		t.Errorf("with a later folder: %s", got)
	}
	put(t, root+"/run/c.json", describe("other"))
	if got := value(); !strings.Contains(got, root+"/run/b.yaml") || !strings.Contains(got, root+"/run/c.json") || !strings.Contains(got, `"v.com/c=d"`) {
		t.Errorf("with a conflict: %s", got)
	}
	if err := os.RemoveAll(root + "/run"); err != nil {
		t.Fatal(err)
	}
	if got := value(); got != "V=etc" {
		t.Errorf("without the later folder: %s", got)
	}
}

func TestFilesAreReadAgainOnlyWhenTheyChanged(t *testing.T) {
	c, root, _ := catalog(t, map[string]string{"etc/a.json": describe("1"), "etc/b.json": strings.ReplaceAll(describe("1"), "v.com", "w.com")})
	find := func(want string) {
		t.Helper()
		if got, err := c.Find([]string{"v.com/c=d"}); err != nil || got.Env[0] != want {
			t.Errorf("Find: %v, %v; want %s", got.Env, err, want)
		}
	}
	find("V=1")
	a, b := c.files[root+"/etc/a.json"].file, c.files[root+"/etc/b.json"].file
	find("V=1")
	if c.files[root+"/etc/a.json"].file != a {
		t.Error("an unchanged file was read again")
	}
	time.Sleep(10 * time.Millisecond) // the clock of file times may be that coarse
	put(t, root+"/etc/a.json", describe("2"))
	find("V=2")
	if c.files[root+"/etc/b.json"].file != b {
		t.Error("an unchanged file was read again")
	}
	// Moved into place with the same size and time.
	var st unix.Stat_t
	if err := unix.Stat(root+"/etc/a.json", &st); err != nil {
		t.Fatal(err)
	}
	put(t, root+"/new", describe("3"))
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, root+"/new", []unix.Timespec{st.Atim, st.Mtim}, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root+"/new", root+"/etc/a.json"); err != nil {
		t.Fatal(err)
	}
	find("V=3")
}

func TestBadFileHurtsNobodyElseAndIsNamed(t *testing.T) {
	c, root, log := catalog(t, map[string]string{"etc/a.json": describe("1"), "etc/bad.yaml": "kind: [", "etc/huge.json": strings.Repeat(" ", maxFile+1)})
	if err := unix.Mkfifo(root+"/etc/pipe.json", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(root+"/etc/folder.json", 0o755); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Find([]string{"v.com/c=d"}); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(log.String(), "bad.yaml"); n != 1 {
		t.Errorf("the file was reported %d times, want once:\n%s", n, log)
	}
	_, err := c.Find([]string{"v.com/c=d", "v.com/c=e"})
	var bad *Error
	if !errors.As(err, &bad) || bad.Index != 1 || bad.Name != "v.com/c=e" {
		t.Fatalf("Find: %v", err)
	}
	for _, want := range []string{root + "/etc, " + root + "/run", "bad.yaml", "huge.json: is larger", "pipe.json: is not a regular file", "folder.json: is not a regular file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// The largest files that are read at all, of the kinds that cost most.
func TestNoFileCostsMuch(t *testing.T) {
	for name, text := range map[string]string{
		"brackets": strings.Repeat("[", maxFile), "braces": strings.Repeat("{", maxFile), "lists": strings.Repeat("- ", maxFile/2),
	} {
		began := time.Now()
		if _, err := parse("f", []byte(text)); err == nil || !strings.Contains(err.Error(), "depth") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
	c, root, _ := catalog(t, map[string]string{"etc/a.yaml": describe("1") + strings.Repeat("#", maxFile)})
	if _, err := c.Find([]string{"v.com/c=d"}); err == nil || !strings.Contains(err.Error(), root+"/etc/a.yaml: is larger than 1048576 bytes") {
		t.Errorf("a file that is too large: %v", err)
	}
}

// A file that takes long is waited for by who needs it; the lock is free.
func TestFilesAreReadOnceByManyAndWithoutTheLock(t *testing.T) {
	c, root, log := catalog(t, map[string]string{"etc/a.json": describe("1"), "etc/bad.yaml": "kind: ["})
	slow := root + "/etc/slow.json"
	put(t, slow, strings.ReplaceAll(describe("1"), "v.com", "w.com"))
	if _, err := c.load(slow); err != nil {
		t.Fatal(err)
	}
	release, reading := make(chan struct{}), make(chan struct{})
	e := &entry{stamp: c.files[slow].stamp}
	c.files[slow] = e
	go e.once.Do(func() { close(reading); <-release })
	<-reading
	var many sync.WaitGroup
	for range 8 {
		many.Go(func() {
			if f, err := c.load(root + "/etc/a.json"); err != nil || f.kind != "v.com/c" {
				t.Errorf("another file: %v, %v", f, err)
			}
			c.load(root + "/etc/bad.yaml")
		})
	}
	many.Wait() // though one is being read
	close(release)
	if n := strings.Count(log.String(), "bad.yaml"); n != 1 {
		t.Errorf("the file was read %d times, want once:\n%s", n, log)
	}
}

func TestUnknownAndBadNamesAreNamed(t *testing.T) {
	c, _, _ := catalog(t, map[string]string{"etc/a.json": describe("1")})
	off := New(nil, slog.Default())
	for name, want := range map[string]string{
		"v.com/c=e": "looked in", "w.com/c=d": "looked in", "v.com/b=d": "looked in",
		"": "vendor.com/class=device", "gpu0": "vendor.com/class=device", "c=d": "kind", "/c=d": "kind", "v.com/=d": "kind",
		"v.com/c=": "name of a device", "v.com/c=../d": "name of a device", "v.com/c/x=d": "kind", "../etc/c=d": "kind", "v.com/c=d\n": "name of a device",
	} {
		if _, err := c.Find([]string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%q): %v, want %s", name, err, want)
		}
	}
	if _, err := off.Find([]string{"v.com/c=d"}); err == nil || !strings.Contains(err.Error(), "switched off") {
		t.Errorf("without folders: %v", err)
	}
	if e, err := off.Find(nil); err != nil || !reflect.DeepEqual(e, Edits{}) {
		t.Errorf("no devices: %v, %v", e, err)
	}
}

// wrap puts edits into a device of a file of the newest version.
func wrap(edits string) string {
	return "cdiVersion: 1.1.0\nkind: v.com/c\ndevices:\n- name: good\n- name: d\n  containerEdits: {" + edits + "}\n"
}

func TestWhatCannotBeDoneIsRefusedByNameAndOnlyToWhoAsks(t *testing.T) {
	for edits, want := range map[string]string{
		"hooks: [{hookName: createContainer, path: /usr/bin/nvidia-cdi-hook}]":              `containerEdits.hooks[0] "/usr/bin/nvidia-cdi-hook"`,
		"hooks: [{hookName: createContainer, path: /x, args: [a], env: [A=1], timeout: 1}]": "--disable-hooks=all",
		"hooks: [null]":         "hooks[0]",
		"intelRdt: {closID: x}": "containerEdits.intelRdt",
		"netDevices: [{hostInterfaceName: eth7, name: eth0}]":                                  `containerEdits.netDevices[0] "eth7"`,
		"mounts: [{hostPath: server:/x, containerPath: /x, type: nfs}]":                        `containerEdits.mounts[0].type "nfs"`,
		"mounts: [{hostPath: /x, containerPath: /x, options: [ro, idmap]}]":                    `containerEdits.mounts[0].options[1] "idmap"`,
		"mounts: [{hostPath: x, containerPath: /x, type: tmpfs, options: [size=50%]}]":         `options[0] "size=50%"`,
		"mounts: [{hostPath: x, containerPath: /x, type: tmpfs, options: [size=9999999999g]}]": `options[0] "size=9999999999g"`,
		"mounts: [{hostPath: x, containerPath: /x, type: tmpfs, options: [mode=99]}]":          `options[0] "mode=99"`,
		"deviceNodes: [{path: /dev/no-such-device}]":                                           `deviceNodes[0].hostPath "/dev/no-such-device": no such file`,
		"deviceNodes: [{path: /dev/x, hostPath: /etc/passwd}]":                                 `deviceNodes[0].hostPath "/etc/passwd": is not a device`,
		"deviceNodes: [{path: /dev/x, hostPath: /dev/null, type: b}]":                          `deviceNodes[0].type "b"`,
	} {
		c, root, _ := catalog(t, map[string]string{"etc/a.yaml": wrap(edits)})
		_, err := c.Find([]string{"v.com/c=d"})
		for _, w := range []string{want, root + "/etc/a.yaml", `"v.com/c=d"`} {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want it to say %s", edits, err, w)
			}
		}
		if _, err := c.Find([]string{"v.com/c=good"}); err != nil {
			t.Errorf("%s: another device of the file: %v", edits, err)
		}
	}
}

func TestFilesThatMakeNoSenseAreRefusedByFieldAndValue(t *testing.T) {
	head := "cdiVersion: 1.1.0\nkind: v.com/c\n"
	for text, want := range map[string]string{
		"": "is empty", "{}": `kind ""`, "- a": "line 1", "a: 1": "field a not found",
		describe("1") + "\n---\n" + describe("2"):                                                       "more than one document",
		`{"cdiVersion": "1.1.0", "cdiVersion": "1.0.0", "kind": "v.com/c", "devices": [{"name": "d"}]}`: "already defined",
		`{"CDIVersion": "1.1.0", "kind": "v.com/c", "devices": [{"name": "d"}]}`:                        "CDIVersion",
		head: "devices: there is none", head + "devices: []": "devices: there is none",
		head + "devices: [null]":                                                                        "devices: there is none",
		head + "devices: [{name: a/b}]":                                                                 `devices[0].name "a/b"`,
		head + "devices: [{name: a}, {name: a}]":                                                        `devices[1].name "a": is given twice`,
		"cdiVersion: 9.9.9\nkind: v.com/c\ndevices: [{name: a}]":                                        `cdiVersion "9.9.9"`,
		"kind: v.com/c\ndevices: [{name: a}]":                                                           `cdiVersion ""`,
		"cdiVersion: 0.3.0\nkind: v.com/c\ndevices: [{name: 0a}]":                                       "at least v0.5.0",
		"cdiVersion: 0.6.0\nkind: v.com/c\ndevices: [{name: a, containerEdits: {additionalGids: [1]}}]": "at least v0.7.0",
		"cdiVersion: 0.3.0\nkind: /c\ndevices: [{name: a}]":                                             `kind "/c"`,
		wrap("env: [A]"):                                          `devices[1].containerEdits.env[0] "A"`,
		wrap("env: [=A]"):                                         `env[0] "=A"`,
		wrap(`env: ["A=\0"]`):                                     "env[0]",
		wrap("deviceNodes: [null]"):                               "deviceNodes[0].path: is missing",
		wrap("deviceNodes: [{path: dev/x}]"):                      `deviceNodes[0].path "dev/x"`,
		wrap("deviceNodes: [{path: /}]"):                          `deviceNodes[0].path "/"`,
		wrap("deviceNodes: [{path: /dev/.}]"):                     `deviceNodes[0].path "/dev/."`,
		wrap("deviceNodes: [{path: /dev/x, hostPath: x}]"):        `hostPath "x"`,
		wrap("deviceNodes: [{path: /dev/x, type: d}]"):            `type "d"`,
		wrap("deviceNodes: [{path: /dev/x, type: c, major: -1}]"): "major -1",
		wrap("deviceNodes: [{path: /dev/x, major: 4096}]"):        "major 4096",
		wrap("deviceNodes: [{path: /dev/x, minor: 1048576}]"):     "minor 1048576",
		wrap("deviceNodes: [{path: /dev/x, permissions: rx}]"):    `permissions "rx"`,
		wrap("deviceNodes: [{path: /dev/x, fileMode: 666}]"):      "fileMode 666 (octal 1232)",
		wrap("deviceNodes: [{path: /dev/x, uid: 4294967295}]"):    "uid 4294967295",
		wrap("deviceNodes: [{path: /dev/x, uid: -1}]"):            "cannot unmarshal",
		wrap("mounts: [null]"):                                    "mounts[0].containerPath: is missing",
		wrap("mounts: [{hostPath: /x}]"):                          `mounts[0].containerPath ""`,
		wrap("mounts: [{hostPath: /x, containerPath: /a/..}]"):    `mounts[0].containerPath "/a/.."`,
		wrap("mounts: [{containerPath: /x}]"):                     `mounts[0].hostPath ""`,
		wrap("additionalGids: [4294967296]"):                      "cannot unmarshal",
	} {
		f, err := parse("/etc/cdi/f.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "/etc/cdi/f.yaml: ") {
			t.Errorf("%q: %v, %v; want an error with %s", text, f, err, want)
		}
	}
}

func TestFileModesWithTypeBitsAreTaken(t *testing.T) {
	for _, mode := range []string{"438", "8630", "69206454"} { // 0666, that of mknod, that of Go
		f, err := parse("f", []byte(wrap("deviceNodes: [{path: /dev/null, fileMode: "+mode+"}]")))
		if err != nil {
			t.Errorf("%s: %v", mode, err)
			continue
		}
		e, err := f.devices["d"].edits()
		if err != nil || *e.Devices[0].Mode != 0o666 {
			t.Errorf("%s: %v, %v", mode, e, err)
		}
	}
}

func FuzzSpecFile(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte(describe("1")))
	f.Add([]byte(wrap("deviceNodes: [null]")))
	f.Add([]byte(wrap("hooks: [null], mounts: [null], netDevices: [null], intelRdt: null")))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("cdiVersion: 1.1.0\nkind: v.com/c\ndevices:\n- &d {name: d}\n- *d\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parse("f", text)
		if err != nil {
			return
		}
		for name, p := range got.devices {
			if _, _, err := splitName(got.kind + "=" + name); err != nil {
				t.Errorf("a device that cannot be named: %v", err)
			}
			e, err := p.edits()
			if err != nil {
				continue
			}
			for _, d := range e.Devices {
				if !absolute(d.ContainerPath) || filepath.Clean(d.ContainerPath) != d.ContainerPath || !absolute(d.HostPath) || strings.Trim(d.Permissions, "rwm") != "" {
					t.Errorf("device %+v", d)
				}
			}
			for _, m := range e.Mounts {
				if !absolute(m.Target) || filepath.Clean(m.Target) != m.Target || m.Target == "/" || m.Kind == spec.BindMount != (m.Source != "") {
					t.Errorf("mount %+v", m)
				}
			}
		}
	})
}
