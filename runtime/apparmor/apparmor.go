// Package apparmor asks the kernel about AppArmor profiles and loads ours.
//
// A Profile is a set of rules that the kernel has by name. Profiles are loaded
// by the administrator, except DefaultName, which the package loads itself.
// It puts no process under a profile: that is done by the process, with its
// own file in /proc, just before it executes its program.
package apparmor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// parameters says whether the kernel has AppArmor and has it switched on.
const parameters = "/sys/module/apparmor/parameters/enabled"

// Enabled tells whether the kernel enforces profiles.
func Enabled() bool {
	text, err := os.ReadFile(parameters)
	return err == nil && strings.HasPrefix(string(text), "Y")
}

// CheckName refuses what is no name of a profile. The kernel takes more where
// it takes a name: other namespaces, stacks, and "unconfined", which would
// turn a wish for confinement into the opposite.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("is missing")
	case name == "unconfined":
		return errors.New("is no profile")
	case strings.HasPrefix(name, ":"), strings.HasPrefix(name, "&"), strings.Contains(name, "//&"):
		return errors.New("is more than the name of one profile")
	case strings.TrimSpace(name) != name, strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("holds blanks at an end or control characters")
	case len(name) > 512:
		return errors.New("is longer than 512 bytes")
	}
	return nil
}

// ErrNotLoaded is a profile that the kernel does not have.
var ErrNotLoaded = errors.New("the profile is not loaded")

// Loaded asks the kernel whether a process could be put under this profile.
// Nothing is changed by it.
func Loaded(name string) error {
	// A file in attr obeys the thread that it belongs to, and only that one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := os.OpenFile("/proc/thread-self/attr/apparmor/current", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("ask for the AppArmor profile %q: %w", name, errors.Unwrap(err))
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("ask for the AppArmor profile %q: /proc is not the kernel's", name)
	}
	switch _, err := f.WriteString("permprofile " + name); {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("AppArmor profile %q: %w", name, ErrNotLoaded)
	case err != nil:
		return fmt.Errorf("ask for the AppArmor profile %q: %w", name, errors.Unwrap(err))
	}
	return nil
}

// current is the profile of this process, without its mode; "unconfined" is
// what it mostly is.
func current() (string, error) {
	text, err := os.ReadFile("/proc/self/attr/apparmor/current")
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(strings.TrimRight(string(text), "\n\x00"), " (")
	return name, nil
}
