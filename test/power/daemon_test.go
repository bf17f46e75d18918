package power

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
)

// daemon is one life of an instance on a disk. Its state is on a tmpfs, as /run
// is, and so goes with the power.
type daemon struct {
	t     *testing.T
	dir   string // of its socket, state, log and configuration
	flags []string

	process *exec.Cmd
	ended   chan error
	conn    *grpc.ClientConn
	criapi.RuntimeServiceClient
	images criapi.ImageServiceClient
}

// newDaemon starts a daemon whose durable root is there, with folders of its own
// for all else.
func newDaemon(t *testing.T, root, certs, form string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "power-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir, flags: []string{"serve", "--root", root, "--registry-config-dir", certs, "--layer-form", form,
		"--state", filepath.Join(dir, "state"), "--listen", "unix://" + dir + "/socket/cri.sock", "--cni-conf-dir", filepath.Join(dir, "net.d"),
		"--cni-bin-dir", filepath.Join(dir, "bin"), "--config", "/dev/null", "--cgroup-driver", "cgroupfs", "--log-level", "debug"}}
	if d.conn, err = grpc.NewClient("unix://"+dir+"/socket/cri.sock", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1, MaxDelay: 5 * time.Millisecond}})); err != nil {
		t.Fatal(err)
	}
	d.RuntimeServiceClient, d.images = criapi.NewRuntimeServiceClient(d.conn), criapi.NewImageServiceClient(d.conn)
	d.serve()
	return d
}

// serve starts the process and returns when it answers.
func (d *daemon) serve() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.process = exec.Command(enclosure.Program("cri-mini"), d.flags...)
	d.process.Stdout, d.process.Stderr = log, log
	if err := d.process.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.ended = make(chan error, 1)
	go func(process *exec.Cmd, ended chan error) { ended <- process.Wait() }(d.process, d.ended)
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := d.Version(ctx, &criapi.VersionRequest{})
		cancel()
		if err == nil {
			return
		}
		select {
		case err := <-d.ended:
			d.t.Fatalf("the daemon ended: %v\n%s", err, d.log())
		default:
		}
		if time.Now().After(end) {
			d.t.Fatalf("the daemon does not answer within %s: %v\n%s", patience, err, d.log())
		}
	}
}

func (d *daemon) log() string {
	text, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// warnings are the lines of the log that an operator has to read.
func (d *daemon) warnings() string {
	var text strings.Builder
	for line := range strings.Lines(d.log()) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			text.WriteString(line)
		}
	}
	return text.String()
}

func (d *daemon) kill() {
	d.t.Helper()
	if err := d.process.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	<-d.ended
}

// stop ends the daemon, its pods and its monitor.
func (d *daemon) stop() {
	d.t.Helper()
	out, err := d.run("stop", "--pods")
	d.conn.Close()
	if err != nil {
		d.t.Errorf("stop --pods: %v\n%s", err, out)
		d.process.Process.Kill()
	}
	select {
	case err := <-d.ended:
		if err != nil {
			d.t.Errorf("end of the daemon: %v", err)
		}
	case <-time.After(patience):
		d.t.Errorf("the daemon still runs %s after stop --pods", patience)
		d.process.Process.Kill()
		<-d.ended
	}
	if d.t.Failed() {
		d.t.Logf("warnings of the daemon:\n%s", d.warnings())
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Error(err)
	}
}

// run is the command line.
func (d *daemon) run(args ...string) (string, error) {
	out, err := exec.Command(enclosure.Program("cri-mini"), append([]string{"--config", "/dev/null", "--listen", "unix://" + d.dir + "/socket/cri.sock"}, args...)...).CombinedOutput()
	return string(out), err
}

func (d *daemon) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	d.t.Cleanup(cancel)
	return ctx
}

func (d *daemon) pull(name string) error {
	_, err := d.images.PullImage(d.context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: name}})
	if err != nil {
		return fmt.Errorf("pull %s: %w", name, err)
	}
	return nil
}

func (d *daemon) remove(name string) error {
	_, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: name}})
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// list gives the IDs of images with their tags.
func (d *daemon) list() (map[string][]string, error) {
	answer, err := d.images.ListImages(d.context(), &criapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	images := map[string][]string{}
	for _, i := range answer.Images {
		images[i.Id] = i.RepoTags
	}
	return images, nil
}
