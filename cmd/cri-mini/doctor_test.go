package main

import (
	"bytes"
	"strings"
	"testing"

	"cri-mini/internal/audit"
)

func TestLittleRoomOnADiskIsFound(t *testing.T) {
	for _, c := range []struct {
		free, all uint64
		want      string
	}{{50, 100, ""}, {9, 100, audit.Notice}, {4, 100, audit.Wrong}, {0, 100, audit.Wrong}, {0, 0, ""}} {
		one := check{Name: "root", Value: "/x"}
		one.room("inodes", c.free, c.all)
		got := ""
		for _, f := range one.Findings {
			got += f.About
		}
		if got != c.want {
			t.Errorf("%d of %d free: %q, want %q", c.free, c.all, got, c.want)
		}
	}
}

func TestDoctorSaysWhatWhereSinceWhenAndWhatToDo(t *testing.T) {
	bad := check{Name: "root", Value: "/x"}
	bad.wrong("it is full", "make room")
	all := checkup{Checks: []check{{Name: "kernel", Value: "6.18"}, bad}}
	var out bytes.Buffer
	if err := all.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ok     kernel   6.18", "wrong  root     /x", "it is full", "do: make room", "ok     records"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("doctor does not say %q:\n%s", want, out.String())
		}
	}
	if !all.bad() || (checkup{Checks: all.Checks[:1]}).bad() {
		t.Error("what is bad is good, or the other way round")
	}
}

func TestKernelThatIsTooOldIsFound(t *testing.T) {
	for value, want := range map[string]string{
		"5.19.0": audit.Wrong, "6.14.11-amd64": audit.Wrong, "6.15.0-rc1": audit.Notice, "6.16.9": audit.Notice,
		"6.17.0": "", "6.18": "", "7.3.0": "", "unknown": "",
	} {
		one := check{Name: "kernel", Value: value}
		one.release()
		got := ""
		for _, f := range one.Findings {
			got += f.About
		}
		if got != want {
			t.Errorf("Linux %s: %q, want %q", value, got, want)
		}
	}
}
