package executor

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"testing"

	"cri-mini/runtime/seccomp"
	"cri-mini/runtime/spec"
)

// like is a container as a kubelet asks for it.
func like(b *testing.B, s *spec.Container) {
	for i := range 10 {
		s.Mounts = append(s.Mounts, spec.Mount{Kind: spec.BindMount, Source: "/etc/hosts", Target: fmt.Sprintf("/etc/mount%d", i), ReadOnly: i%2 == 0})
	}
	s.MaskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"}
	s.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	filter, err := seccomp.Compile(seccomp.Default(nil))
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range filter {
		s.Process.Seccomp = binary.NativeEndian.AppendUint16(s.Process.Seccomp, f.Code)
		s.Process.Seccomp = append(s.Process.Seccomp, f.Jt, f.Jf)
		s.Process.Seccomp = binary.NativeEndian.AppendUint32(s.Process.Seccomp, f.K)
	}
	s.Process.NoNewPrivs = true
	s.Process.User = spec.User{UID: 1000, GID: 1000}
}

func BenchmarkContainer(b *testing.B) {
	n := newNode(b, spec.Sandbox{})
	first := n.container("first", func(s *spec.Container) { like(b, s) }, "sleep", "1000")
	i := 0
	for b.Loop() {
		i++
		s := first
		s.ID = "c" + strconv.Itoa(i)
		s.Cgroup = testGroup + "/" + s.ID
		s.Rootfs.Writable += s.ID
		if err := n.Prepare(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		if _, err := n.Start(b.Context(), s.ID); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := n.Remove(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		n.exit(s.ID)
		b.StartTimer()
	}
}

func BenchmarkExec(b *testing.B) {
	n := newNode(b, spec.Sandbox{})
	s := n.container("first", func(s *spec.Container) { like(b, s) }, "sleep", "1000")
	if err := n.Prepare(b.Context(), s); err != nil {
		b.Fatal(err)
	}
	if _, err := n.Start(b.Context(), s.ID); err != nil {
		b.Fatal(err)
	}
	p := s.Process
	p.Args = []string{"/bin/true"}
	for b.Loop() {
		x, err := n.Exec(b.Context(), s.ID, p, spec.ExecIO{Stdout: true, Stderr: true})
		if err != nil {
			b.Fatal(err)
		}
		io.ReadAll(x.Stdout())
		if code, err := x.Wait(b.Context()); code != 0 || err != nil {
			b.Fatal(code, err)
		}
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSandbox(b *testing.B) {
	n := newNode(b, spec.Sandbox{})
	i := 0
	for b.Loop() {
		i++
		id := "s" + strconv.Itoa(i)
		if _, err := n.CreateSandbox(b.Context(), spec.Sandbox{ID: id, Hostname: "x"}); err != nil {
			b.Fatal(err)
		}
		if err := n.RemoveSandbox(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}
