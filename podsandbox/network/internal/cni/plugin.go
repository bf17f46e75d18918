package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"cri-mini/podsandbox/network/internal/netns"
)

const (
	maxOutput = 1 << 20 // of a plugin's result
	maxNoise  = 4 << 10 // of what it says besides, in an error
	// linger is how long a killed plugin's children may hold its pipes.
	linger = 2 * time.Second
)

// runner runs plugin programs; it is libcni's way out to the system.
type runner struct {
	version.PluginDecoder
	host  *os.File
	limit time.Duration
}

// ExecPlugin runs a plugin to its end.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.limit, fmt.Errorf("did not end within %s and was killed", r.limit))
	defer cancel()
	stdout, stderr := &bounded{limit: maxOutput, full: cancel}, &bounded{limit: maxNoise}
	c := exec.CommandContext(ctx, path)
	c.Stdin, c.Stdout, c.Stderr, c.Env = bytes.NewReader(stdin), stdout, stderr, environ
	// A group of its own, so that what the plugin started dies with it; and not
	// one that outlives us, for its attachment would race with our next life.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = linger
	// The thread stays ours until the plugin ends: its death signal is the
	// thread's death.
	err := netns.Do(r.host, c.Run)
	name := "plugin " + filepath.Base(path)
	switch {
	case stdout.over:
		return nil, fmt.Errorf("%s wrote more than %d bytes and was killed", name, maxOutput)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%s %w", name, context.Cause(ctx))
	case err != nil:
		return nil, explain(name, err, stdout.buf.Bytes(), stderr.buf.String())
	}
	return stdout.buf.Bytes(), nil
}

// explain finds the plugin's own words.
func explain(name string, err error, stdout []byte, stderr string) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) == nil && said.Msg != "" {
		return &Error{Plugin: name, Said: said}
	}
	if noise := strings.TrimSpace(stderr + string(stdout[:min(len(stdout), maxNoise)])); noise != "" {
		return fmt.Errorf("%s: %q: %w", name, noise, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// Error is a failure that a plugin reported.
type Error struct {
	Plugin string
	Said   types.Error
}

func (e *Error) Error() string {
	if e.Said.Details == "" {
		return fmt.Sprintf("%s: %s", e.Plugin, e.Said.Msg)
	}
	return fmt.Sprintf("%s: %s; %s", e.Plugin, e.Said.Msg, e.Said.Details)
}

// FindInPath finds a plugin's program.
func (r *runner) FindInPath(plugin string, dirs []string) (string, error) {
	if plugin == "" || plugin != filepath.Base(plugin) {
		return "", fmt.Errorf("%q is not the name of a plugin", plugin)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, plugin)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin %s not found in %s", plugin, strings.Join(dirs, ", "))
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	buf   bytes.Buffer
	limit int
	over  bool
	full  func() // called when more comes
}

var errFull = errors.New("too much output")

func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.buf.Len()
	if len(p) <= room {
		return b.buf.Write(p)
	}
	b.buf.Write(p[:room])
	if b.full == nil {
		return len(p), nil
	}
	b.over = true
	b.full()
	return room, errFull
}
