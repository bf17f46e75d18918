package wire

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// handover has something in every field.
func handover() *Handover {
	return &Handover{
		Listener: 3,
		Conns:    []HeldConn{{File: 7, Watches: true}, {File: 8, Asked: true}},
		Tasks: []HeldTask{
			{
				Task:  Task{ID: "3f2a", PID: 42, Started: time.Unix(5, 6)},
				Spec:  TaskSpec{Files: 4, Cgroup: true, Record: true, Log: true, Stdin: true, Stdout: true, Stderr: true, Rootfs: true, StdinOnce: true},
				Pidfd: 10, Cgroup: 11, Record: 12, Log: 13, Stdin: 14, Terminal: -1, Rootfs: 15, BoundTo: -1,
				Streams: []HeldStream{
					{Name: "stdout", File: 16, Line: []byte("the beginning"), Held: true, Sinks: []HeldSink{{File: 17, Pending: []byte("not yet read")}}},
					{Name: "stderr", File: -1},
				},
				Lost: 2, LostFor: unix.ENOSPC,
			},
			{
				Task:  Task{ID: "9c41", PID: 43, Started: time.Unix(7, 0), Ended: true, Code: 137, At: time.Unix(8, 9), OOMKilled: true, Unknown: true},
				Spec:  TaskSpec{Terminal: true, Attach: true, Bound: true},
				Pidfd: -1, Cgroup: -1, Record: -1, Log: -1, Stdin: -1, Terminal: 18, Rootfs: -1, BoundTo: 7,
				Adopted: true, EndSeen: true, Unrecorded: true,
			},
		},
		Pins: []HeldPin{{ID: "pod", Names: []string{"net", "ipc"}, Files: []int{19, 20}}},
	}
}

func TestHandoverSurvivesWithAllDescriptorsInItsHead(t *testing.T) {
	want := handover()
	data := want.Encode()
	if got := fmt.Sprint(want.Files); got != "[7 8 10 11 12 13 14 15 16 17 18 19 20]" {
		t.Errorf("descriptors %s", got)
	}
	got, err := DecodeHandover(data)
	if err != nil || !same(got, want) {
		t.Errorf("it became %+v, %v;\nwant %+v", got, err, want)
	}
	for n := range data {
		if _, err := DecodeHandover(data[:n]); err == nil {
			t.Errorf("%d of %d bytes were taken for a handover", n, len(data))
		}
	}
}

// same does not tell an empty list from none.
func same(a, b *Handover) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }

func TestOfAHandoverOfAnotherVersionTheHeadIsRead(t *testing.T) {
	h := handover()
	data := h.Encode()
	data[0]++
	got, err := DecodeHandover(append(data, "what nobody knows"...))
	if !errors.Is(err, ErrHandover) || got.Listener != 3 || !reflect.DeepEqual(got.Files, h.Files) || len(got.Tasks) > 0 {
		t.Errorf("read %+v, %v; want the head and %v", got, err, ErrHandover)
	}
}

var update = flag.Bool("update", false, "record the handover of this version, if there is none yet")

// One file of each version that there was: a monitor can be of any of them.
func TestHandoverOfEachVersionIsUnderstood(t *testing.T) {
	own := fmt.Sprintf("testdata/handover-%d", HandoverVersion)
	if _, err := os.Stat(own); *update && os.IsNotExist(err) {
		if err := os.WriteFile(own, handover().Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	recorded, err := filepath.Glob("testdata/handover-*")
	if err != nil || len(recorded) != HandoverVersion {
		t.Fatalf("there are %v, %v; want one of each of %d versions (-update records that of today)", recorded, err, HandoverVersion)
	}
	want := handover()
	want.Encode()
	for _, name := range recorded {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeHandover(data); err != nil || !same(got, want) {
			t.Errorf("%s is read as %+v, %v", strings.TrimPrefix(name, "testdata/"), got, err)
		}
	}
}

// A daemon and a monitor of different versions understand these.
func TestGreetingAndUpgradeAreTheSameInAllVersions(t *testing.T) {
	for _, verb := range []Verb{Hello, Upgrade} {
		data := append([]byte{byte(verb)}, "whatever another version says"...)
		if r, err := DecodeRequest(data); err != nil || r.Verb != verb {
			t.Errorf("request %+v, %v; want verb %d", r, err, verb)
		}
		if data := (&Request{Verb: verb}).Encode(); data[0] != byte(verb) {
			t.Errorf("verb %d is sent as % x", verb, data)
		}
	}
	if Hello != 1 || Upgrade != 15 {
		t.Errorf("Hello is %d and Upgrade %d, were 1 and 15", Hello, Upgrade)
	}
	if a, err := DecodeAnswer([]byte{99, 14, 1, 2, 3}); err != nil || a.Version != 99 || a.PID != 7 {
		t.Errorf("a greeting of version 99 is read as %+v, %v", a, err)
	}
	if data := (&Answer{Version: Version, PID: 7, Failed: -1}).Encode(); data[0] != Version || data[1] != 14 {
		t.Errorf("a greeting begins with % x", data)
	}
}
