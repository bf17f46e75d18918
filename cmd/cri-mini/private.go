package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cri-mini/internal/config"
)

// daemonForRun is the daemon at e or, when none answers there, one of our own
// that ends with us. end takes it back.
func daemonForRun(ctx context.Context, e *config.Endpoint) (*config.Endpoint, func() error, error) {
	if daemonAt(e).Check() == nil {
		return e, func() error { return nil }, nil
	}
	p, err := startPrivate(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("no daemon answers at %s, and none could be started: %w", e.Listen, err)
	}
	return &p.endpoint, p.end, nil
}

// private is a daemon for one command.
type private struct {
	dir      string
	endpoint config.Endpoint
	process  *exec.Cmd
	lifeline *os.File // its stdin: the daemon clears up when we die
	ended    chan error
}

// startPatience is how long a daemon may take to become ready.
const startPatience = 20 * time.Second

func startPrivate(ctx context.Context) (*private, error) {
	// Of the temporary places the one on a disk: layers may need it.
	dir, err := os.MkdirTemp(cmp.Or(os.Getenv("TMPDIR"), "/var/tmp"), "cri-mini-")
	if err != nil {
		return nil, err
	}
	p := &private{dir: dir, endpoint: config.Endpoint{Listen: "unix://" + dir + "/cri.sock"}, ended: make(chan error, 1)}
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer ready.Close()
	if err := p.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	heard := make(chan error, 1)
	go func() {
		ready.SetReadDeadline(time.Now().Add(startPatience))
		_, err := ready.Read(make([]byte, 64))
		heard <- err
	}()
	select {
	case err = <-heard:
	case ended := <-p.ended:
		p.ended <- ended
		err = fmt.Errorf("it ended: %s", p.lastWords())
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

func (p *private) start() error {
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	p.lifeline = ours
	p.process = exec.Command("/proc/self/exe", "serve", "--private="+p.dir, "--log-level=warn",
		"--listen="+p.endpoint.Listen, "--root="+filepath.Join(p.dir, "root"), "--state="+filepath.Join(p.dir, "state"))
	p.process.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(p.dir, "notify"))
	p.process.Stdin, p.process.Stderr = theirs, log
	// A session of its own: Ctrl-C is not for it.
	p.process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.process.Start(); err != nil {
		ours.Close()
		return err
	}
	go func() { p.ended <- p.process.Wait() }()
	return nil
}

// end lets the daemon clear up and waits for it. One that was killed has left
// everything behind, so another one is started that clears up after it.
func (p *private) end() error {
	err := p.wait()
	if err != nil {
		if again := p.start(); again != nil {
			return errors.Join(err, again)
		}
		err = errors.Join(err, p.wait())
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

func (p *private) wait() error {
	p.lifeline.Close()
	select {
	case err := <-p.ended:
		if err != nil {
			return fmt.Errorf("private daemon: %w: %s", err, p.lastWords())
		}
		return nil
	case <-time.After(2 * startPatience):
		return fmt.Errorf("private daemon %d in %s does not end", p.process.Process.Pid, p.dir)
	}
}

func (p *private) lastWords() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
