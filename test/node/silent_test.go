package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// silentMount is a shared mount whose server reads no request, as that of a
// network file system does that is gone.
func silentMount(t *testing.T) string {
	t.Helper()
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if os.IsNotExist(err) {
		t.Skip("kernel feature missing: FUSE")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := syscall.Mount("silent", dir, "fuse.silent", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close() // whoever waits gets an error
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// threads of the daemon.
func (d *daemon) threads() int {
	d.t.Helper()
	for line := range strings.Lines(readFile(d.t, fmt.Sprintf("/proc/%d/status", d.pid()))) {
		if text, found := strings.CutPrefix(line, "Threads:"); found {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				d.t.Fatal(err)
			}
			return n
		}
	}
	d.t.Fatal("no count of threads")
	return 0
}

// soon fails the test when do takes longer than limit.
func soon(t *testing.T, what string, limit time.Duration, do func()) {
	t.Helper()
	began := time.Now()
	do()
	if took := time.Since(began); took > limit {
		t.Errorf("%s took %s, want at most %s", what, took, limit)
	}
}

func TestSilentHostPathEndsOnlyTheCallThatNamesIt(t *testing.T) {
	silent := silentMount(t)
	d := ready(t)
	p := d.runPod("a")
	create := func(config *criapi.ContainerConfig) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
		return err
	}
	mount := func(path string, propagation criapi.MountPropagation) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) {
			c.Mounts = []*criapi.Mount{{ContainerPath: "/m", HostPath: path, Propagation: propagation}}
		}
	}
	for _, way := range []struct {
		name, field, path string
		set               func(*criapi.ContainerConfig)
	}{
		{"plain", "mount", silent + "/plain", mount(silent+"/plain", 0)},
		{"shared", "mount", silent + "/shared", mount(silent+"/shared", criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER)},
		{"device", "devices[0].host_path", silent + "/device", func(c *criapi.ContainerConfig) {
			c.Devices = []*criapi.Device{{ContainerPath: "/dev/x", HostPath: silent + "/device", Permissions: "r"}}
		}},
		{"seccomp", "seccomp.localhost_ref", silent + "/seccomp", func(c *criapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: silent + "/seccomp"}
		}},
		{"root", "mount", silent, mount(silent, 0)},
		{"below", "mount", silent + "/below", mount(silent+"/below", 0)}, // its first try is no first one
	} {
		config := containerConfig(way.name, "sleep", "1000")
		way.set(config)
		var before int
		for try := range 12 {
			soon(t, way.name, 10*time.Second, func() {
				err := create(config)
				if err == nil || !strings.Contains(err.Error(), way.field) || !strings.Contains(err.Error(), way.path) {
					t.Errorf("%s: %v; want an error with %s and %s", way.name, err, way.field, way.path)
				}
				// The first one waits; whoever comes after hears it at once.
				if (try > 0 || way.name == "below") && (err == nil || !strings.Contains(err.Error(), "has not answered for")) {
					t.Errorf("%s, again: %v", way.name, err)
				}
			})
			if try == 0 {
				before = d.threads()
			}
		}
		if more := d.threads() - before; more > 4 {
			t.Errorf("%s: %d more threads after 11 more tries", way.name, more)
		}
		// The name is free.
		c := p.run(containerConfig(way.name, "sleep", "1000"))
		c.stop(0)
		c.remove()
	}
	p.remove()
	soon(t, "the end of the daemon", 35*time.Second, d.terminate)
	d.serve()
}

func TestSilentLogIsTheEndOfOneStart(t *testing.T) {
	silent := silentMount(t)
	d := ready(t)
	p := d.runPod("a", func(c *criapi.PodSandboxConfig) { c.LogDirectory = filepath.Join(silent, "logs") })
	c := p.create(containerConfig("c", "sleep", "1000"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := d.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: c.id})
	if err == nil || !strings.Contains(err.Error(), "log_path") || !strings.Contains(err.Error(), silent) {
		t.Errorf("start: %v; want an error with the field and the path", err)
	}
	soon(t, "the removal of the pod", 40*time.Second, p.remove)
	d.wholeLife("other")
	soon(t, "the end of the daemon", 35*time.Second, d.terminate)
	d.serve()
}

// terminate ends the daemon as a service manager does; pods go on.
func (d *daemon) terminate() {
	d.t.Helper()
	if err := d.process.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	select {
	case err := <-d.ended:
		if err != nil {
			d.t.Errorf("end of the daemon: %v", err)
		}
	case <-time.After(patience):
		d.t.Fatalf("the daemon still runs %s after SIGTERM", patience)
	}
}
