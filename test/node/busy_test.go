package node

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
)

// The kernel refuses to follow ".." inside a root while anything is renamed or
// mounted anywhere on the machine, and wants to be asked again. Many images
// have such links, and on a busy node something is always renamed.
func TestRenamesElsewhereDoNotDisturbImagesWithRelativeLinks(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	link := func(name, to string) testregistry.File {
		return testregistry.File{Name: name, Type: tar.TypeSymlink, Link: to}
	}
	image := d.push("relative", ocispec.ImageConfig{WorkingDir: "/opt/work"},
		testregistry.File{Name: "srv/"}, testregistry.File{Name: "srv/data/"}, testregistry.File{Name: "run/"}, testregistry.File{Name: "opt/"},
		testregistry.File{Name: "run/hosts", Data: "x"}, testregistry.File{Name: "run/accounts", Data: testregistry.Accounts},
		link("etc/hosts", "../run/hosts"), link("etc/passwd", "../run/accounts"), link("etc/resolv.conf", "../run/../run/later/resolv.conf"),
		link("opt/work", "../srv/../srv/data"))
	p := d.runPod("p")
	dir, stop := t.TempDir(), make(chan struct{})
	var others sync.WaitGroup
	for i := range 2 {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if os.Rename(name, name+".x") != nil || os.Rename(name+".x", name) != nil {
					return
				}
			}
		})
	}
	for i := range 30 {
		config := containerConfig(fmt.Sprint(i), "sleep", "1000")
		config.Image.Image = image
		config.Linux.SecurityContext.RunAsUsername = "user"
		config.Mounts = []*criapi.Mount{{ContainerPath: "/opt/work/mnt", HostPath: dir}}
		c, err := p.try(config)
		if err == nil {
			if err = c.tryStart(); err == nil && i == 0 {
				if got := c.exec("sh", "-c", "pwd -P; ls mnt | head -n 1 | head -c 1; id -u"); len(got) < 14 || got[:9] != "/srv/data" {
					t.Errorf("in the container: %q", got)
				}
			}
			c.remove()
		}
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	others.Wait()
	p.remove()
	d.removeImage(image)
	check()
}
