package executor

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// sysctls has one of each class.
var sysctls = map[string]string{
	"kernel/shm_rmid_forced":              "1",
	"kernel/sem":                          "32000\t1024000000\t500\t32001",
	"fs/mqueue/msg_max":                   "99",
	"net/ipv4/ip_unprivileged_port_start": "77",
	"net/ipv4/conf/lo/forwarding":         "1",
}

func TestSysctlsAreThePodsOwn(t *testing.T) {
	ids := &spec.IDMapping{Host: 100000, Length: 65536}
	for name, s := range map[string]spec.Sandbox{"plain": {}, "user namespace": {IDs: ids}} {
		t.Run(name, func(t *testing.T) {
			before := map[string]string{}
			var script strings.Builder
			for key := range sysctls {
				text, err := os.ReadFile("/proc/sys/" + key)
				if err != nil {
					t.Fatal(err)
				}
				before[key] = string(text)
				script.WriteString("echo " + key + "=$(cat /proc/sys/" + key + ");")
			}
			s.Sysctls = sysctls
			n := newNode(t, s)
			got := n.run("a", script.String(), func(c *spec.Container) { c.Rootfs.IDs = s.IDs })
			for key, value := range sysctls {
				if want := key + "=" + strings.ReplaceAll(value, "\t", " "); !strings.Contains(got+"\n", want+"\n") {
					t.Errorf("no %q in:\n%s", want, got)
				}
				if text, err := os.ReadFile("/proc/sys/" + key); err != nil || string(text) != before[key] {
					t.Errorf("the node's %s is %q, %v, and was %q", key, text, err, before[key])
				}
			}
		})
	}
}

func TestSysctlThatTheKernelRefusesIsNamed(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	for key, c := range map[string]struct {
		value string
		errno error
	}{
		"net/ipv4/no_such_thing": {"1", unix.ENOENT}, "net/ipv4/ip_forward": {"x", unix.EINVAL},
	} {
		_, err := n.CreateSandbox(t.Context(), spec.Sandbox{ID: "bad", Sysctls: map[string]string{key: c.value}})
		var wrong *spec.InputError
		if !errors.As(err, &wrong) || wrong.Part != spec.InputSysctl || wrong.Name != key || wrong.Value != c.value || !errors.Is(err, c.errno) {
			t.Errorf("%s: %v, want %v", key, err, c.errno)
		}
	}
}
