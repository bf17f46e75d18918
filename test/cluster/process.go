package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long a program may take to begin or to end on a busy machine.
const patience = 5 * time.Minute

// process is a program that runs until it is stopped, with its output in a file.
type process struct {
	name, log string
	cmd       *exec.Cmd
	done      chan struct{}
	err       error // after done
}

// begin starts a program. Its exit belongs to who starts it: see reap.
func begin(dir, name string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), cmd: cmd, done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// run is begin for a process that is not the first of its namespace.
func run(dir, name string, cmd *exec.Cmd) (*process, error) {
	p, err := begin(dir, name, cmd)
	if err == nil {
		go func() { p.end(cmd.Wait()) }()
	}
	return p, err
}

func (p *process) end(err error) {
	p.err = err
	close(p.done)
}

// ended says how a process ended that has, and is nil before.
func (p *process) ended() error {
	if !p.hasEnded() {
		return nil
	}
	return fmt.Errorf("%s has ended: %v\n%s", p.name, p.err, p.tail(20))
}

func (p *process) hasEnded() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the process to end, and waits for it.
func (p *process) stop(signal syscall.Signal) error {
	_ = p.cmd.Process.Signal(signal) // it may have ended
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s did not end in %s: %s", p.name, patience, p.tail(10))
	}
}

func (p *process) tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.SplitAfter(string(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// await waits for something to become true while some processes run.
func await(what string, check func() error, alive ...*process) error {
	return within(patience, what, check, alive...)
}

func within(limit time.Duration, what string, check func() error, alive ...*process) error {
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		err := check()
		if err == nil {
			return nil
		}
		for _, p := range alive {
			if p.hasEnded() {
				return fmt.Errorf("%s: %w", what, p.ended())
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
	}
}

// command runs a short program and returns what it says.
func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
