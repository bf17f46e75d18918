package node

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
)

var recordTo = flag.String("record-node", "", "`file` to which a node's folders are recorded, in the format of now: testdata/node-VERSION.tar.gz, once per release")

const recordedImage = "registry.test/recorded:1"

// Words in a recorded file for what differs from run to run.
const (
	recordedDir   = "@DIR@"
	recordedState = "@STATE@"
	recordedBoot  = "@BOOT@"
)

func (d *daemon) bootID() string {
	d.t.Helper()
	return strings.TrimSpace(readFile(d.t, "/proc/sys/kernel/random/boot_id"))
}

// smallest is a static program for amd64 with nothing but these instructions.
func smallest(code ...byte) []byte {
	const base, head = 0x400000, 64 + 56
	program := []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, part := range []any{
		uint16(2), uint16(62), uint32(1), uint64(base + head), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), [3]uint16{},
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), uint64(head + len(code)), uint64(head + len(code)), uint64(4096), code,
	} {
		var err error
		if program, err = binary.Append(program, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return program
}

// recordNode makes a node with a bit of everything and writes down what is in
// its folders after its daemon was killed.
func recordNode(t *testing.T) {
	d := start(t)
	registry(t).Push("recorded", "1", testregistry.Image{Layers: []testregistry.Layer{{Files: []testregistry.File{
		testregistry.Program("exit", smallest(0xbf, 7, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05)), // exit(7)
		testregistry.Program("wait", smallest(0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7)),       // pause, again and again
	}}}})
	d.pull(recordedImage)
	config := func(name string, args ...string) *criapi.ContainerConfig {
		c := containerConfig(name, args...)
		c.Image.Image = recordedImage
		c.Labels, c.Annotations = map[string]string{"who": name}, map[string]string{"said": name}
		return c
	}
	dns := &criapi.DNSConfig{Servers: []string{"192.0.2.53"}} // not this machine's
	p := d.runPod("full", func(c *criapi.PodSandboxConfig) {
		c.DnsConfig = dns
		c.Hostname, c.Labels, c.Annotations = "kitten", map[string]string{"who": "full"}, map[string]string{"said": "full"}
		c.PortMappings = []*criapi.PortMapping{{HostPort: 18090, ContainerPort: 80}}
	})
	p.run(config("running", "/wait"))
	p.run(config("exited", "/exit")).exited()
	p.create(config("created", "/wait"))
	if _, err := d.UpdatePodSandboxResources(d.context(), &criapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id, Resources: &criapi.LinuxContainerResources{CpuShares: 512}}); err != nil {
		t.Fatal(err)
	}
	shared := d.runPod("shared", func(c *criapi.PodSandboxConfig) {
		c.DnsConfig = dns
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	})
	joined := config("joined", "/wait")
	joined.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	shared.run(joined)
	stopped := d.runPod("stopped", func(c *criapi.PodSandboxConfig) { c.DnsConfig = dns })
	if _, err := d.StopPodSandbox(d.context(), &criapi.StopPodSandboxRequest{PodSandboxId: stopped.id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "layers are synced", d.synced)
	d.kill()
	if err := d.record(*recordTo); err != nil {
		t.Error(err)
	}
	d.serve()
}

func (d *daemon) record(file string) error {
	var all bytes.Buffer
	packed := gzip.NewWriter(&all)
	archive := tar.NewWriter(packed)
	words := strings.NewReplacer(d.state, recordedState, d.dir, recordedDir, d.bootID(), recordedBoot)
	for name, dir := range map[string]string{"root": d.root(), "state": filepath.Join(d.state, "state")} {
		if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() && !e.Type().IsRegular() {
				return err // sockets are of a process
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			head, err := tar.FileInfoHeader(info, "")
			if err != nil {
				return err
			}
			var text string
			if e.Type().IsRegular() {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				text = words.Replace(string(data))
			}
			head.Name, head.Size = name+strings.TrimPrefix(path, dir), int64(len(text))
			head.Uname, head.Gname = "", ""
			if err := archive.WriteHeader(head); err != nil {
				return err
			}
			_, err = io.WriteString(archive, text)
			return err
		}); err != nil {
			return err
		}
	}
	if err := errors.Join(archive.Close(), packed.Close()); err != nil {
		return err
	}
	return os.WriteFile(file, all.Bytes(), 0o644)
}

// unpack is the opposite of record, as of a given boot.
func (d *daemon) unpack(file, boot string) {
	d.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	packed, err := gzip.NewReader(f)
	if err != nil {
		d.t.Fatal(err)
	}
	words := strings.NewReplacer(recordedState, d.state, recordedDir, d.dir, recordedBoot, boot)
	times := map[string]time.Time{} // set last: what is put into a folder changes its own
	defer func() {
		for path, at := range times {
			if err := os.Chtimes(path, at, at); err != nil {
				d.t.Error(err)
			}
		}
	}()
	for archive := tar.NewReader(packed); ; {
		head, err := archive.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			d.t.Fatal(err)
		}
		base, rest, _ := strings.Cut(head.Name, "/")
		path := filepath.Join(map[string]string{"root": d.root(), "state": filepath.Join(d.state, "state")}[base], rest)
		mode := head.FileInfo().Mode().Perm()
		if head.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, mode)
		} else {
			var data []byte
			if data, err = io.ReadAll(archive); err == nil {
				err = os.WriteFile(path, []byte(words.Replace(string(data))), mode)
			}
		}
		if err = errors.Join(err, os.Chmod(path, mode)); err != nil {
			d.t.Fatal(err)
		}
		times[path] = head.ModTime
	}
}

// What earlier versions wrote is understood. There is one record of each format
// that there was; it stays.
func TestRecordsOfEachFormatAreUnderstood(t *testing.T) {
	if *recordTo != "" {
		t.Run("record", recordNode)
	}
	files, err := filepath.Glob("testdata/node-*.tar.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded nodes: %v, %v", files, err)
	}
	formats := map[string]bool{}
	for _, file := range files {
		for _, boot := range []string{"this boot", "another boot"} {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".tar.gz")+" in "+boot, func(t *testing.T) {
				d := startOn(t, func(d *daemon) {
					id := "01234567-89ab-cdef-0123-456789abcdef"
					if boot == "this boot" {
						id = d.bootID()
					}
					d.unpack(file, id)
					formats[d.formats()] = true
				})
				d.understood()
			})
		}
	}
	d := ready(t)
	p := d.runPod("today")
	p.create(containerConfig("c", "sleep", "1000"))
	if now := d.formats(); !formats[now] {
		t.Errorf("no recorded node has the formats of today, %s, only %v: record one, go test ./test/node -run EachFormat -args -record-node testdata/node-VERSION.tar.gz", now, formats)
	}
	p.remove()
}

var versionField = regexp.MustCompile(`"Version":\s*(\d+)`)

// formats are the versions of the records of pods, containers and images.
func (d *daemon) formats() string {
	d.t.Helper()
	var all []string
	for _, pattern := range []string{"pods/*/pod.json", "pods/*/containers/*/container.json", "images/records/*.json"} {
		found, err := filepath.Glob(filepath.Join(d.root(), pattern))
		if err != nil || len(found) == 0 {
			d.t.Fatalf("no %s: %v", pattern, err)
		}
		version := versionField.FindStringSubmatch(readFile(d.t, found[0]))
		if version == nil {
			d.t.Fatalf("%s has no version", found[0])
		}
		all = append(all, pattern+" "+version[1])
	}
	return strings.Join(all, ", ")
}

// understood looks for what recordNode made, and removes it.
func (d *daemon) understood() {
	t := d.t
	t.Helper()
	pods, err := d.ListPodSandbox(d.context(), &criapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, p := range pods.Items {
		ids[p.Metadata.Name] = p.Id
		// Whatever boot it is, nobody has held their namespaces.
		if p.State != criapi.PodSandboxState_SANDBOX_NOTREADY || p.Metadata.Uid != "uid-"+p.Metadata.Name || p.Metadata.Namespace != "default" {
			t.Errorf("pod %v", p)
		}
	}
	if len(pods.Items) != 3 || ids["full"] == "" || ids["shared"] == "" || ids["stopped"] == "" {
		t.Fatalf("there are the pods %v", ids)
	}
	full, err := d.PodSandboxStatus(d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: ids["full"]})
	if err != nil || fmt.Sprint(full.Status.Labels, full.Status.Annotations) != "map[who:full] map[said:full]" {
		t.Errorf("pod full: %v, %v", full, err)
	}
	containers, err := d.ListContainers(d.context(), &criapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]criapi.ContainerState{}
	for _, c := range containers.Containers {
		s := (&container{d: d, id: c.Id}).status()
		states[c.Metadata.Name] = s.State
		if s.Image.Image != recordedImage || fmt.Sprint(s.Labels, s.Annotations) != fmt.Sprintf("map[who:%[1]s] map[said:%[1]s]", c.Metadata.Name) {
			t.Errorf("container %v", s)
		}
		switch ran := s.StartedAt > 0; {
		case c.Metadata.Name == "exited" && (s.ExitCode != 7 || !ran || s.FinishedAt < s.StartedAt):
			t.Errorf("it had exited with 7, and is %v", s)
		case c.Metadata.Name == "created" && ran, c.Metadata.Name != "created" && !ran:
			t.Errorf("%s, started: %t", c.Metadata.Name, ran)
		}
	}
	if len(states) != 4 || states["running"] != criapi.ContainerState_CONTAINER_EXITED || states["exited"] != criapi.ContainerState_CONTAINER_EXITED || states["joined"] != criapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("containers are %v", states)
	}
	image, err := d.images.ImageStatus(d.context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: recordedImage}})
	if err != nil || image.Image == nil {
		t.Errorf("image: %v, %v", image, err)
	}
	if out, err := d.run("image", "verify"); err != nil {
		t.Errorf("image verify: %v\n%s", err, out)
	}
	if err := d.down([]string{ids["full"], ids["shared"], ids["stopped"]}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: recordedImage}}); err != nil {
		t.Error(err)
	}
	for _, pattern := range []string{"bad-records/*", "pods/*", "containers/*", "network/pods/*", "images/records/*", "images/layers/layers/*", "tasks/*", "exits/*"} {
		for _, dir := range []string{d.root(), filepath.Join(d.state, "state")} {
			if left, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(left) > 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		}
	}
}
