package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// process is a daemon's one process.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan error // what Wait returned
}

func (p *process) start(cmd *exec.Cmd, log string) error {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	p.cmd, p.log, p.ended = cmd, log, make(chan error, 1)
	go func() { p.ended <- cmd.Wait() }()
	return nil
}

// waitReady asks for the version until an answer comes.
func (p *process) waitReady(endpoint string, patience time.Duration) error {
	connection, err := Connect(endpoint)
	if err != nil {
		return err
	}
	defer connection.Close()
	client := criapi.NewRuntimeServiceClient(connection)
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := client.Version(ctx, &criapi.VersionRequest{})
		cancel()
		if err == nil {
			return nil
		}
		if err := p.alive(); err != nil {
			return fmt.Errorf("before it answered: %w", err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon does not answer after %v: %w", patience, err)
		}
	}
}

// pause between tries to connect is short: how long a start takes is measured.
const pause = 2 * time.Millisecond

// Connect is for clients of a daemon that may not be there yet.
func Connect(endpoint string) (*grpc.ClientConn, error) {
	again := grpc.ConnectParams{MinConnectTimeout: time.Second, Backoff: backoff.Config{BaseDelay: pause, Multiplier: 1, MaxDelay: pause}}
	return grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(again))
}

func (p *process) alive() error {
	select {
	case err := <-p.ended:
		p.ended <- err
		return fmt.Errorf("the daemon ended by itself: %v, see %s", err, p.log)
	default:
		return nil
	}
}

// Pid is the daemon's process.
func (p *process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the daemon at once, and leaves its pods running.
func (p *process) Kill() error {
	err := p.cmd.Process.Kill()
	p.ended <- <-p.ended // keep what Wait returned
	return err
}

// end waits for a daemon that was told to.
func (p *process) end() error {
	select {
	case err := <-p.ended:
		if err != nil {
			return fmt.Errorf("the daemon, told to end: %w", err)
		}
		return nil
	case <-time.After(2 * time.Minute):
		return errors.Join(errors.New("the daemon did not end within 2m"), p.cmd.Process.Kill())
	}
}

func (p *process) terminate() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
