package node

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fill leaves no byte and no file on the file system of dir. The writer is
// outside of the containers, so that their removal does not make the room.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "filling")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// full is a node whose disk is small.
func full(t *testing.T) *daemon {
	disk := t.TempDir()
	if err := syscall.Mount("disk", disk, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
	return ready(t, "--root", disk)
}

// diskOf is the folder that full gave to --root.
func (d *daemon) diskOf() string { return d.flags[1] }

func TestFullDiskIsLeftByStoppingAndRemoving(t *testing.T) {
	d := full(t)
	p := d.runPod("writer")
	writer := p.run(containerConfig("c", "sh", "-c", "cat /dev/zero >/file; sleep 1000"))
	never := p.create(containerConfig("never", "true"))
	other := d.runPod("other")
	other.run(containerConfig("c", "sleep", "1000"))
	eventually(t, "the disk is full", func() bool {
		var st syscall.Statfs_t
		return syscall.Statfs(d.diskOf(), &st) == nil && st.Bfree == 0
	})
	// The daemon that stops them is one that has only the full disk to go by.
	d.restart()
	if _, err := d.StopPodSandbox(d.context(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatalf("stop pod: %v", err)
	}
	for _, c := range []*container{writer, never} {
		if got := c.status().State; got != criapi.ContainerState_CONTAINER_EXITED {
			t.Errorf("container of the stopped pod is %s", got)
		}
	}
	if _, err := d.StopPodSandbox(d.context(), &criapi.StopPodSandboxRequest{PodSandboxId: other.id}); err != nil {
		t.Fatalf("stop pod: %v", err)
	}
	// Nothing of the stops is on the disk: the next daemon finds it out.
	d.restart()
	for _, id := range []string{p.id, other.id} {
		answer, err := d.PodSandboxStatus(d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: id})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status.State != criapi.PodSandboxState_SANDBOX_NOTREADY {
			t.Errorf("a stopped pod is %s after a restart of the daemon", answer.Status.State)
		}
	}
	other.remove()
	never.remove()
	writer.remove()
	p.remove()
	image, err := d.images.ImageStatus(d.context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: shell}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: image.Image.Id}}); err != nil {
		t.Errorf("remove image: %v", err)
	}
	d.pull(shell)
	d.wholeLife("after")
}

func TestFullDiskKeepsNoPodAndNoImage(t *testing.T) {
	d := full(t)
	p := d.runPod("a")
	p.run(containerConfig("c", "sleep", "1000"))
	never := p.create(containerConfig("never", "true"))
	empty := fill(t, d.diskOf())
	never.stop(0)
	p.remove()
	image, err := d.images.ImageStatus(d.context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: shell}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: image.Image.Id}}); err != nil {
		t.Errorf("remove image: %v", err)
	}
	empty()
	d.pull(shell)
	d.wholeLife("after")
}

func TestEndThatFoundNoRoomIsWrittenLater(t *testing.T) {
	d := full(t)
	p := d.runPod("a")
	c := p.create(containerConfig("never", "true"))
	empty := fill(t, d.diskOf())
	c.stop(0)
	empty()
	record := filepath.Join(d.diskOf(), "pods", p.id, "containers", c.id, "exit.json")
	eventually(t, "the record of the end", func() bool { _, err := os.Stat(record); return err == nil })
	d.restart()
	if got := c.status().State; got != criapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("after a restart the container is %s, want exited", got)
	}
	p.remove()
}
