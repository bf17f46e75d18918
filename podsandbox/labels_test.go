package podsandbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/selinux"
)

// fakeSELinux is a kernel with this policy, which has no label with the word
// "bad" in it.
type fakeSELinux struct {
	policy *selinux.Policy
	err    error
}

func (f *fakeSELinux) Policy() (*selinux.Policy, error) { return f.policy, f.err }

func (f *fakeSELinux) Valid(label string) error {
	if strings.Contains(label, "bad") {
		return fmt.Errorf("the SELinux policy has no label %q", label)
	}
	return nil
}

func enforcing() *fakeSELinux {
	return &fakeSELinux{policy: &selinux.Policy{
		Process:    selinux.Label{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0"},
		File:       selinux.Label{User: "system_u", Role: "object_r", Type: "container_file_t", Level: "s0"},
		Privileged: "system_u:system_r:spc_t:s0",
	}}
}

// labelsOf creates and starts a container and gives its labels.
func labelsOf(t *testing.T, l *life, pod, name string, change func(*criapi.LinuxContainerSecurityContext)) (process, file string) {
	t.Helper()
	cfg := containerConfig(name)
	cfg.Linux.SecurityContext = &criapi.LinuxContainerSecurityContext{}
	if change != nil {
		change(cfg.Linux.SecurityContext)
	}
	id, err := l.pods.Create(t.Context(), l.id(pod), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := l.world.prepared[id]
	return s.Process.SELinux, s.Rootfs.Label
}

func TestContainersOfAPodShareALevelThatNoOtherPodHas(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.world.selinux = *enforcing()
		l.do([]string{"run", "a"})
		l.do([]string{"run", "b"})
		p1, f1 := labelsOf(t, l, "a", "one", nil)
		l.do([]string{"restart"}) // the level is the pod's, not the daemon's
		p2, f2 := labelsOf(t, l, "a", "two", nil)
		p3, f3 := labelsOf(t, l, "b", "three", nil)
		if p1 != p2 || f1 != f2 || !strings.HasPrefix(p1, "system_u:system_r:container_t:s0:c") {
			t.Errorf("in one pod: %s %s and %s %s", p1, f1, p2, f2)
		}
		if p1 == p3 || f1 == f3 {
			t.Errorf("in two pods: %s %s", p1, f1)
		}
		a, _ := l.pods.Sandbox(l.id("a"))
		if shm := l.world.sandboxes[a.ID].Label; shm != f1 {
			t.Errorf("/dev/shm has %s, files %s", shm, f1)
		}
		level := a.level()
		if n := l.pods.levels.Count(level); n != 1 {
			t.Errorf("after a restart the level of a pod is kept %d times, want 1", n)
		}
		l.do([]string{"remove", "a"})
		if n := l.pods.levels.Count(level); n != 0 {
			t.Errorf("a pod that is gone keeps its level %d times", n)
		}
	})
}

func TestContainerMayAskForAnotherLabelThatExists(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.world.selinux = *enforcing()
		l.do([]string{"run", "a"})
		process, file := labelsOf(t, l, "a", "one", func(s *criapi.LinuxContainerSecurityContext) {
			s.SelinuxOptions = &criapi.SELinuxOption{Type: "other_t", Level: "s0:c4,c5"}
		})
		if process != "system_u:system_r:other_t:s0:c4,c5" || file != "system_u:object_r:container_file_t:s0:c4,c5" {
			t.Errorf("labels %s and %s", process, file)
		}
		cfg := containerConfig("two")
		cfg.Linux.SecurityContext = &criapi.LinuxContainerSecurityContext{SelinuxOptions: &criapi.SELinuxOption{Type: "bad_t"}}
		_, err := l.pods.Create(t.Context(), l.id("a"), cfg)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "selinux_options") || !strings.Contains(err.Error(), "bad_t") {
			t.Errorf("a label that the policy does not have: %v", err)
		}
		bad := podConfig("b")
		bad.Linux.SecurityContext = &criapi.LinuxSandboxSecurityContext{SelinuxOptions: &criapi.SELinuxOption{User: "bad_u", Level: "s0:c1,c2"}}
		if _, err := l.pods.Run(t.Context(), bad, ""); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "bad_u") {
			t.Errorf("a pod with such a label: %v", err)
		}
		if n := l.pods.levels.Count("s0:c1,c2"); n != 0 {
			t.Errorf("a pod that was refused keeps its level %d times", n)
		}
	})
}

// Where SELinux is enforced and the labels are not known, nothing starts.
func TestNothingRunsWithoutLabelsWhereTheyAreEnforced(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.do([]string{"run", "old"}) // SELinux is off
		if process, file := labelsOf(t, l, "old", "one", func(s *criapi.LinuxContainerSecurityContext) {
			s.SelinuxOptions = &criapi.SELinuxOption{Level: "s0:c1,c2"}
		}); process != "" || file != "" {
			t.Errorf("labels without SELinux: %s %s", process, file)
		}
		l.world.selinux = *enforcing()
		cfg := containerConfig("two")
		if _, err := l.pods.Create(t.Context(), l.id("old"), cfg); !errors.Is(err, ErrFailedPrecondition) {
			t.Errorf("in a pod without a label: %v", err)
		}
		l.world.selinux = fakeSELinux{err: errors.New("no labels for containers")}
		if _, err := l.pods.Run(t.Context(), podConfig("new"), ""); err == nil || !strings.Contains(err.Error(), "no labels") {
			t.Errorf("a pod without a policy: %v", err)
		}
		if _, err := l.pods.Create(t.Context(), l.id("old"), cfg); err == nil || !strings.Contains(err.Error(), "no labels") {
			t.Errorf("a container without a policy: %v", err)
		}
	})
}
