package apparmor

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// DefaultName is the profile of containers that ask for the runtime's default.
const DefaultName = "cri-mini-default"

// text is the default profile. {{daemon}} stands for a rule about ourselves.
//
//go:embed default.profile
var text string

// parsers are the places of the program that compiles profiles. It runs as
// root on the host: nothing else may say where it is.
var parsers = []string{"/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"}

// parseTime is more than a slow machine needs for a profile.
const parseTime = time.Minute

// replace is the file of the kernel that takes compiled profiles.
const replace = "/sys/kernel/security/apparmor/.replace"

// ErrCannotLoad is a node on which no profile can be loaded, now or later, by
// what is installed and mounted there.
var ErrCannotLoad = errors.New("the AppArmor profile " + DefaultName + " cannot be loaded")

// Profiles answers for what the kernel has. It is safe for concurrent use.
type Profiles struct {
	// Log hears once when containers that ask for nothing go without.
	Log *slog.Logger

	mu     sync.Mutex // guards loaded; held while the parser runs
	loaded bool       // by this process, so that its text is the present one
	warned sync.Once
}

// Enabled: see the function.
func (p *Profiles) Enabled() bool { return Enabled() }

// Loaded: see the function.
func (p *Profiles) Loaded(name string) error { return Loaded(name) }

// LoadDefault makes sure that the kernel has the default profile. The first
// call of a process loads it even so: an older program may have left an older
// one. The kernel then puts running containers under the new rules.
func (p *Profiles) LoadDefault(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded && Loaded(DefaultName) == nil {
		return nil
	}
	switch err := load(ctx); {
	case errors.Is(err, ErrCannotLoad) && Loaded(DefaultName) == nil:
		return nil // somebody else did, for instance outside of our container
	case err != nil:
		return err
	}
	if err := Loaded(DefaultName); err != nil { // the parser is not the kernel
		return err
	}
	p.loaded = true
	return nil
}

// WarnWithout tells once that the default profile is not there.
func (p *Profiles) WarnWithout(err error) {
	p.warned.Do(func() { p.Log.Warn("containers that ask for no AppArmor profile run without one", "error", err) })
}

func load(ctx context.Context) error {
	parser, err := findParser()
	if err != nil {
		return err
	}
	profile, err := defaultProfile()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, parseTime)
	defer cancel()
	// From its input, without the cache of the host's own profiles.
	command := exec.CommandContext(ctx, parser, "--skip-cache", "--replace")
	command.Env, command.Dir = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, "/"
	command.Stdin = strings.NewReader(profile)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Run(); err != nil {
		return fmt.Errorf("load the AppArmor profile %s: %s: %w: %s", DefaultName, parser, err, tail(said.String()))
	}
	return nil
}

func findParser() (string, error) {
	if _, err := os.Stat(replace); err != nil {
		return "", fmt.Errorf("%w: is securityfs mounted? %w", ErrCannotLoad, err)
	}
	for _, path := range parsers {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: the program %s is missing (package apparmor)", ErrCannotLoad, parsers[0])
}

// defaultProfile lets the daemon signal its containers also when it has a
// profile itself.
func defaultProfile() (string, error) {
	own, err := current()
	if err != nil {
		return "", fmt.Errorf("AppArmor profile of this process: %w", err)
	}
	rule := ""
	if own != "unconfined" && CheckName(own) == nil && !strings.ContainsAny(own, "\"\\") {
		rule = fmt.Sprintf("  signal (receive) peer=\"%s\",\n", own)
	}
	return strings.ReplaceAll(text, "{{daemon}}\n", rule), nil
}

func tail(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-500):]
}
