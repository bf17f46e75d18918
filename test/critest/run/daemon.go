package main

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

// daemon is the runtime under test with directories of its own.
type daemon struct {
	program string
	work    string // parent of all its directories
	log     string

	process *exec.Cmd
	ended   chan error // what Wait returned
}

func (d *daemon) root() string       { return filepath.Join(d.work, "root") }
func (d *daemon) state() string      { return filepath.Join(d.work, "state") }
func (d *daemon) registries() string { return filepath.Join(d.work, "certs.d") }
func (d *daemon) endpoint() string   { return "unix://" + filepath.Join(d.work, "cri.sock") }

// place is the part of the command line that says which instance is meant.
func (d *daemon) place() []string {
	return []string{"--root=" + d.root(), "--state=" + d.state(), "--listen=" + d.endpoint()}
}

func (d *daemon) start() error {
	log, err := os.Create(d.log)
	if err != nil {
		return err
	}
	defer log.Close()
	d.process = exec.Command(d.program, append([]string{"serve"}, append(d.place(),
		"--registry-config-dir="+d.registries(),
		"--cni-conf-dir="+filepath.Join(d.work, "cni.conf"),
		"--cni-bin-dir="+filepath.Join(d.work, "cni.bin"),
		"--network=builtin", "--cgroup-driver=cgroupfs", "--log-level=debug")...)...)
	d.process.Stdout, d.process.Stderr = log, log
	if err := d.process.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	d.ended = make(chan error, 1)
	go func() { d.ended <- d.process.Wait() }()
	return d.waitReady(20 * time.Second)
}

// waitReady asks for the version until an answer comes.
func (d *daemon) waitReady(patience time.Duration) error {
	connection, err := grpc.NewClient(d.endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := criapi.NewRuntimeServiceClient(connection)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		version, err := client.Version(ctx, &criapi.VersionRequest{})
		cancel()
		if err == nil {
			say("%s %s answers", version.RuntimeName, version.RuntimeVersion)
			return nil
		}
		select {
		case ended := <-d.ended:
			d.ended <- ended
			return fmt.Errorf("the daemon ended before it answered: %v, see %s", ended, d.log)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon does not answer after %v: %w", patience, err)
		}
	}
}

// stop ends the pods, the monitor and the daemon, in the order a user would.
func (d *daemon) stop() error {
	var wrong []error
	select {
	case err := <-d.ended:
		d.ended <- err
		wrong = append(wrong, fmt.Errorf("the daemon ended during the suite: %v", err))
	default:
	}
	out, err := exec.Command(d.program, append([]string{"stop", "--pods"}, d.place()...)...).CombinedOutput()
	if err != nil {
		wrong = append(wrong, fmt.Errorf("stop --pods: %w: %s", err, out))
	}
	if err := d.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		wrong = append(wrong, err)
	}
	select {
	case err := <-d.ended:
		if err != nil {
			wrong = append(wrong, fmt.Errorf("the daemon, told to end: %w", err))
		}
	case <-time.After(20 * time.Second):
		wrong = append(wrong, errors.New("the daemon did not end within 20s of SIGTERM"), d.process.Process.Kill())
	}
	return errors.Join(wrong...)
}
