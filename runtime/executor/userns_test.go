package executor

import (
	"strconv"
	"strings"
	"testing"

	"cri-mini/runtime/spec"
)

func TestUserNamespace(t *testing.T) {
	ids := &spec.IDMapping{Host: 100000, Length: 65536}
	n := newNode(t, spec.Sandbox{IDs: ids, Hostname: "mapped"})
	got := n.run("a", "cat /proc/self/uid_map; id; hostname; ls -ln /dev/null /bin/busybox; ls -lnd /dev/mqueue /dev/fd /dev/shm /dev/pts; touch /made && ls -ln /made && ls /proc/1/ns/ && cat /sys/fs/cgroup/cgroup.procs",
		func(s *spec.Container) { s.Rootfs.IDs = ids })
	if strings.Join(strings.Fields(strings.Split(got, "\n")[0]), " ") != "0 100000 65536" || strings.Contains(got, "65534") {
		t.Errorf("inside:\n%s", got)
	}
}

func TestUserNamespaceOfFewIDs(t *testing.T) {
	for length := uint32(1); length <= 6; length++ {
		ids := &spec.IDMapping{Host: 100000, Length: length}
		t.Run(strconv.Itoa(int(length)), func(t *testing.T) {
			n := newNode(t, spec.Sandbox{IDs: ids, SharedPID: true})
			got := n.run("a", "tty; grep devpts /proc/mounts", func(s *spec.Container) {
				s.Rootfs.IDs, s.PID, s.Process.Terminal = ids, spec.PIDPod, true
			})
			if !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "mode=620") || strings.Contains(got, "gid=100005") != (length > 5) {
				t.Errorf("inside:\n%s", got)
			}
		})
	}
}
