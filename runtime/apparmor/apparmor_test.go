package apparmor

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"cri-mini/internal/testtool"
)

// need skips on a kernel without AppArmor.
func need(t *testing.T) {
	t.Helper()
	if !Enabled() {
		t.Skip("kernel feature missing: AppArmor")
	}
}

func TestKernelKnowsWhatIsLoaded(t *testing.T) {
	need(t)
	if err := new(Profiles).LoadDefault(t.Context()); err != nil {
		if errors.Is(err, ErrCannotLoad) {
			t.Skip(&testtool.Missing{Tool: "apparmor_parser", Package: "apparmor"})
		}
		t.Fatal(err)
	}
	if err := Loaded(DefaultName); err != nil {
		t.Errorf("after loading: %v", err)
	}
	if err := Loaded("there-is-no-such-profile"); !errors.Is(err, ErrNotLoaded) || !strings.Contains(err.Error(), "there-is-no-such-profile") {
		t.Errorf("unknown profile: %v", err)
	}
	if name, err := current(); err != nil || name != "unconfined" {
		t.Errorf("asking changed our own profile: %q, %v", name, err)
	}
}

// A kernel without AppArmor answers no question; that is an error and not a yes.
func TestWithoutAppArmorNothingIsLoaded(t *testing.T) {
	if Enabled() {
		return // TestKernelKnowsWhatIsLoaded is for this kernel
	}
	if err := Loaded("any"); err == nil || errors.Is(err, ErrNotLoaded) {
		t.Errorf("Loaded says %v", err)
	}
	if err := new(Profiles).LoadDefault(t.Context()); err == nil {
		t.Error("the default profile was loaded")
	}
}

// The compiler of the distribution takes the profile, with and without a
// profile of our own. It needs no AppArmor in the kernel for that.
func TestDefaultProfileCompiles(t *testing.T) {
	parser := testtool.Need(t, "apparmor_parser", "apparmor")
	for name, rule := range map[string]string{"unconfined": "", "confined": "  signal (receive) peer=\"/usr/bin/cri mini\",\n"} {
		command := exec.Command(parser, "--skip-kernel-load", "--skip-cache", "--stdout")
		command.Stdin = strings.NewReader(strings.ReplaceAll(text, "{{daemon}}\n", rule))
		out, err := command.Output()
		if err != nil || !strings.Contains(string(out), DefaultName) {
			t.Errorf("%s: %v, %d bytes", name, err, len(out))
		}
	}
	if n := strings.Count(text, "{{daemon}}\n"); n != 1 {
		t.Errorf("%d places for the rule about the daemon, want 1", n)
	}
}
