// Package instance runs the daemon under test with directories of its own.
//
// A Daemon is one process of the program with its root, its state, its socket
// and its registries. The package uses the command line and the Version call,
// as any user would, and knows nothing of how the daemon works.
package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Daemon is one instance. The exported fields are set before Start.
type Daemon struct {
	Program string
	Work    string // parent of all its directories
	Log     string // file for its standard output and error
	Level   string // of its log

	CgroupDriver string

	process *exec.Cmd
	ended   chan error // what Wait returned
}

// Root is the directory for what survives a reboot.
func (d *Daemon) Root() string { return filepath.Join(d.Work, "root") }

// State is the directory for what does not.
func (d *Daemon) State() string { return filepath.Join(d.Work, "state") }

// Registries is the directory of hosts.toml files.
func (d *Daemon) Registries() string { return filepath.Join(d.Work, "certs.d") }

// Endpoint is where it listens.
func (d *Daemon) Endpoint() string { return "unix://" + filepath.Join(d.Work, "cri.sock") }

// Start returns when the daemon answers.
func (d *Daemon) Start() error {
	log, err := os.Create(d.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	d.process = exec.Command(d.Program, "serve",
		"--root="+d.Root(), "--state="+d.State(), "--listen="+d.Endpoint(),
		"--registry-config-dir="+d.Registries(),
		"--cni-conf-dir="+filepath.Join(d.Work, "cni.conf"),
		"--cni-bin-dir="+filepath.Join(d.Work, "cni.bin"),
		"--network=builtin", "--cgroup-driver="+d.CgroupDriver, "--log-level="+d.Level)
	d.process.Stdout, d.process.Stderr = log, log
	if err := d.process.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	d.ended = make(chan error, 1)
	go func() { d.ended <- d.process.Wait() }()
	return d.waitReady(2 * time.Minute)
}

// waitReady asks for the version until an answer comes.
func (d *Daemon) waitReady(patience time.Duration) error {
	connection, err := grpc.NewClient(d.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := criapi.NewRuntimeServiceClient(connection)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := client.Version(ctx, &criapi.VersionRequest{})
		cancel()
		if err == nil {
			return nil
		}
		select {
		case ended := <-d.ended:
			d.ended <- ended
			return fmt.Errorf("the daemon ended before it answered: %v, see %s", ended, d.Log)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon does not answer after %v: %w", patience, err)
		}
	}
}

// Stop ends the pods, the monitor and the daemon, as a user would.
func (d *Daemon) Stop() error {
	select {
	case err := <-d.ended:
		return fmt.Errorf("the daemon ended by itself: %v, see %s", err, d.Log)
	default:
	}
	var wrong []error
	out, err := exec.Command(d.Program, "stop", "--pods", "--listen="+d.Endpoint()).CombinedOutput()
	if err != nil {
		wrong = append(wrong, fmt.Errorf("stop --pods: %w: %s", err, out), d.process.Process.Signal(syscall.SIGTERM))
	}
	select {
	case err := <-d.ended:
		if err != nil {
			wrong = append(wrong, fmt.Errorf("the daemon, told to end: %w", err))
		}
	case <-time.After(2 * time.Minute):
		wrong = append(wrong, errors.New("the daemon did not end within 2m"), d.process.Process.Kill())
	}
	return errors.Join(wrong...)
}
