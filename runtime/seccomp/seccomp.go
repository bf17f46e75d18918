// Package seccomp turns a seccomp profile into the program that the kernel
// runs at every system call.
//
// A Profile is a document in the format of Docker and of the OCI runtime
// specification: rules, some of which hold only with or without a capability.
// A rule names calls, perhaps conditions on their arguments, and an action.
// Compile makes classic BPF of it. The package installs nothing.
//
// Rules mean what they mean to the other runtimes, whose compiler is
// libseccomp. Its output for the default profile takes the kernel ten times as
// long to install, for the kernel tries the program with every number:
// therefore this compiler, which searches ranges of numbers by halves.
package seccomp

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MaxFile is the largest profile that Load reads.
const MaxFile = 1 << 20

// Profile is a checked profile and the capabilities that its conditions ask
// about. It does not change.
type Profile struct {
	source *profiles.Seccomp
	digest [sha256.Size]byte
	caps   []string // sorted, with CAP_
}

var defaultSource = sync.OnceValue(profiles.DefaultProfile)

// Default is the profile of a container that asks for the runtime's default:
// Docker's. The capabilities of the container open calls that are of no use,
// and no danger, without them.
func Default(caps []string) *Profile {
	p := Profile{source: defaultSource()}
	return p.For(caps)
}

// Load reads a profile from a file of the host.
func Load(path string) (*Profile, error) {
	data, err := read(path)
	if err != nil {
		return nil, &os.PathError{Op: "seccomp profile", Path: path, Err: err}
	}
	p, err := Parse(data)
	if err != nil {
		return nil, &os.PathError{Op: "seccomp profile", Path: path, Err: err}
	}
	return p, nil
}

// read does not wait for a writer (a FIFO) and does not fill memory (a device).
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("larger than %d bytes", MaxFile)
	}
	return data, nil
}

// Parse reads a profile. It refuses what it does not know, a misspelt key too:
// a rule that is silently dropped may be the one that mattered.
func Parse(data []byte) (*Profile, error) {
	p := &Profile{source: new(profiles.Seccomp), digest: sha256.Sum256(data)}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(p.source); err != nil {
		return nil, fmt.Errorf("not a profile: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a profile: something follows the document")
	}
	if err := check(p.source); err != nil {
		return nil, err
	}
	return p, nil
}

// For is the same profile for a container with these capabilities. Without it
// the conditions are decided as for a container that has none.
func (p *Profile) For(caps []string) *Profile {
	other := *p
	other.caps = make([]string, 0, len(caps))
	for _, c := range caps {
		other.caps = append(other.caps, "CAP_"+strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	slices.Sort(other.caps)
	return &other
}

// Flags are those to give to seccomp(2). With no list in the profile that is
// SPEC_ALLOW, as with runc: older kernels would slow every container down
// against an attack that the list of calls has no part in.
func (p *Profile) Flags() uint {
	if p.source.Flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	var flags uint
	for _, f := range p.source.Flags {
		flags |= knownFlags[f]
	}
	return flags
}

// knownFlags: two of them have nothing to do here. A container's first
// program has one thread, and nobody listens for notifications.
var knownFlags = map[specs.LinuxSeccompFlag]uint{
	specs.LinuxSeccompFlagLog:              unix.SECCOMP_FILTER_FLAG_LOG,
	specs.LinuxSeccompFlagSpecAllow:        unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
	"SECCOMP_FILTER_FLAG_TSYNC":            0,
	specs.LinuxSeccompFlagWaitKillableRecv: 0,
}
