package selinux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Policy is what the node's policy gives to containers.
type Policy struct {
	Process Label // of programs
	File    Label // of their files
	// Privileged is the label of programs that are not to be confined; empty
	// when the policy has none, and then decides itself.
	Privileged string
}

// unconfinedType is that of privileged containers in every policy that knows
// containers.
const unconfinedType = "spc_t"

// Node is the kernel and the policy of a machine. It is safe for concurrent use.
type Node struct {
	// Root is where /sys, /proc and /etc are; empty but in tests.
	Root string

	once   sync.Once
	policy *Policy
	err    error
}

// Policy is nil where labels mean nothing: SELinux is off, or it only watches
// and its policy does not know containers. Where it is enforced and does not
// know containers, that is an error: they would run as what we are.
func (n *Node) Policy() (*Policy, error) {
	n.once.Do(func() { n.policy, n.err = n.find() })
	return n.policy, n.err
}

func (n *Node) find() (*Policy, error) {
	if !n.enabled() {
		return nil, nil
	}
	policy, err := n.read()
	if err == nil {
		return policy, nil
	}
	enforce, readErr := os.ReadFile(n.Root + "/sys/fs/selinux/enforce")
	if readErr != nil {
		return nil, fmt.Errorf("SELinux: %w", errors.Join(err, readErr))
	}
	if strings.TrimSpace(string(enforce)) == "0" {
		return nil, nil
	}
	return nil, fmt.Errorf("SELinux is enforced, but its policy has no labels for containers (package container-selinux): %w", err)
}

// enabled: the file system is there and a policy is loaded, before which all
// processes have the label "kernel".
func (n *Node) enabled() bool {
	if n.Root == "" {
		var st unix.Statfs_t
		if unix.Statfs("/sys/fs/selinux", &st) != nil || st.Type != unix.SELINUX_MAGIC {
			return false
		}
	}
	own, err := os.ReadFile(n.Root + "/proc/self/attr/current")
	return err == nil && strings.TrimRight(string(own), "\x00\n") != "kernel"
}

// read finds the labels where every container runtime looks for them.
func (n *Node) read() (*Policy, error) {
	config, err := assignments(n.Root + "/etc/selinux/config")
	if err != nil {
		return nil, err
	}
	name := config["SELINUXTYPE"]
	if name == "" || name != filepath.Base(name) || name == ".." {
		return nil, fmt.Errorf("/etc/selinux/config: SELINUXTYPE %q is no name of a policy", name)
	}
	path := filepath.Join("/etc/selinux", name, "contexts/lxc_contexts")
	contexts, err := assignments(n.Root + path)
	if err != nil {
		return nil, err
	}
	p := new(Policy)
	if p.Process, err = Parse(contexts["process"]); err != nil {
		return nil, fmt.Errorf("%s: process: %w", path, err)
	}
	if p.File, err = Parse(contexts["file"]); err != nil {
		return nil, fmt.Errorf("%s: file: %w", path, err)
	}
	privileged := p.Process.With(Label{Type: unconfinedType}).String()
	if n.Valid(privileged) == nil {
		p.Privileged = privileged
	}
	return p, nil
}

// assignments reads lines like: name = "value".
func assignments(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); ok && !strings.HasPrefix(name, "#") {
			found[name] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return found, nil
}

// Valid asks the kernel whether its policy has a label.
func (n *Node) Valid(label string) error {
	f, err := os.OpenFile(n.Root+"/sys/fs/selinux/context", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("ask for the SELinux label %q: %w", label, err)
	}
	defer f.Close()
	if _, err := f.Write(append([]byte(label), 0)); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("the SELinux policy has no label %q", label)
		}
		return fmt.Errorf("ask for the SELinux label %q: %w", label, errors.Unwrap(err))
	}
	return nil
}
