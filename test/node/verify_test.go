package node

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
)

// spoilLayer changes a byte of the one layer on the disk that has the text.
func (d *daemon) spoilLayer(text string) (name string) {
	d.t.Helper()
	folders, err := filepath.Glob(filepath.Join(d.root(), "images/layers/layers/*"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, folder := range folders {
		path := filepath.Join(folder, "tree/data")
		data, err := os.ReadFile(path)
		if err != nil {
			path = filepath.Join(folder, "image.erofs")
			data, err = os.ReadFile(path)
		}
		at := bytes.Index(data, []byte(text))
		if err != nil || at < 0 {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			d.t.Fatal(err)
		}
		_, err = f.WriteAt([]byte("X"), int64(at))
		if err = errors.Join(err, f.Close()); err != nil {
			d.t.Fatal(err)
		}
		return strings.Replace(filepath.Base(folder), "-", ":", 1)
	}
	d.t.Fatalf("no layer has %q", text[:10])
	return ""
}

// exitCode is that of a command line.
func exitCode(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func TestImageVerifyFindsDamageAndRepairsItUnderARunningContainer(t *testing.T) {
	text := strings.Repeat("whole", 2000)
	const name = "registry.test/verify:1"
	pushed := registry(t).Push("verify", "1", busybox(t, testregistry.Layer{Files: []testregistry.File{{Name: "data", Data: text}}}))
	for _, form := range []string{"directory", "erofs"} {
		t.Run(form, func(t *testing.T) {
			d := ready(t, "--layer-form", form)
			d.pull(name)
			ofImage := func(c *criapi.ContainerConfig) *criapi.ContainerConfig { c.Image.Image = name; return c }
			first := d.runPod("first") // the daemon keeps a mount of each EROFS layer that was used
			first.run(ofImage(containerConfig("first", "sleep", "1000")))
			first.remove()
			check := d.unchanged()
			before, after := d.runPod("before"), d.runPod("after")
			running := before.run(ofImage(containerConfig("running", "sleep", "1000")))
			if out, err := d.run("image", "verify"); err != nil || !strings.HasSuffix(out, "layers: "+strings.Fields(out)[0]+" whole\n") {
				t.Errorf("verify of whole images: %v\n%s", err, out)
			}
			layer := d.spoilLayer(text)
			out, err := d.run("image", "verify", name)
			if exitCode(err) != 1 || !strings.HasPrefix(out, "layer "+layer+" of "+name+"\n  data: content differs\n") || !strings.HasSuffix(out, "2 layers: 1 whole, 1 damaged\n--repair fetches what is damaged anew\n") {
				t.Errorf("verify of a damaged image: %v\n%s", err, out)
			}
			asked := registry(t).Count(pushed.Layers[0].String())
			if out, err := d.run("image", "verify", "--repair"); err != nil || !strings.Contains(out, "  repaired\n") || !strings.HasSuffix(out, "(1 repaired)\n") {
				t.Errorf("repair: %v\n%s", err, out)
			}
			if n := registry(t).Count(pushed.Layers[0].String()); n != asked {
				t.Errorf("the layer that was whole was fetched %d times more", n-asked)
			}
			if out, err := d.run("image", "verify", "--json", name); err != nil || strings.Count(out, `"Whole": true`) != 2 {
				t.Errorf("verify after the repair: %v\n%s", err, out)
			}
			fresh := after.run(ofImage(containerConfig("fresh", "sleep", "1000")))
			if got := fresh.exec("cat", "/data"); got != text {
				t.Error("a container started right after the repair does not have the repaired layer")
			}
			for range 2 { // by the next daemon too
				if got := running.exec("cat", "/data"); len(got) != len(text) {
					t.Errorf("the container that ran meanwhile reads %d bytes, want %d", len(got), len(text))
				}
				d.restart()
			}
			later := after.run(ofImage(containerConfig("later", "sleep", "1000")))
			if got := later.exec("cat", "/data"); got != text {
				t.Error("a container started later does not have the repaired layer")
			}
			replaced := func() int {
				list, err := os.ReadDir(filepath.Join(d.root(), "images/layers/replaced"))
				if err != nil {
					t.Fatal(err)
				}
				return len(list)
			}
			after.remove()
			if replaced() != 1 {
				t.Errorf("%d replaced layers while a container uses one, want 1", replaced())
			}
			before.remove()
			if replaced() != 0 {
				t.Errorf("%d replaced layers when no container uses one, want none", replaced())
			}
			check()
		})
	}
}
