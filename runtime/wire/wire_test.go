package wire

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
	"cri-mini/runtime/spawn"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

var request = Request{
	Verb: Spawn, ID: "3f2a", Names: []string{"net", "ipc"}, PID: 7, At: time.Unix(5, 6),
	Image: &spawn.Image{Flags: 1 << 40, Copy: true, Blob: []byte("blob"), Pointers: []uint32{1, 200}, Files: []spawn.FileSlot{{Offset: 300, Index: 2}}},
	Task:  TaskSpec{Files: 3, Cgroup: true, Log: true, Stderr: true, StdinOnce: true},
}

var answer = Answer{
	Version: Version, PID: 42, At: time.Unix(1, 2), Failed: -1, Errno: unix.ENOENT, Names: []string{"pidfd"},
	Tasks: []Task{{ID: "a", PID: 9, Started: time.Unix(3, 4), Ended: true, Code: 137, At: time.Unix(5, 0), OOMKilled: true}},
}

func TestMessagesSurviveTheWire(t *testing.T) {
	got, err := DecodeRequest(request.Encode())
	if err != nil || !reflect.DeepEqual(*got, request) {
		t.Errorf("request became %+v, %v", got, err)
	}
	back, err := DecodeAnswer(answer.Encode())
	if err != nil || !reflect.DeepEqual(*back, answer) {
		t.Errorf("answer became %+v, %v", back, err)
	}
}

func TestEveryCutMessageIsAnError(t *testing.T) {
	whole := request.Encode()
	for n := range whole {
		if _, err := DecodeRequest(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes were taken for a request", n, len(whole))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(request.Encode())
	f.Add(answer.Encode())
	f.Add(handover().Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		DecodeRequest(data)
		DecodeAnswer(data)
		DecodeHandover(data)
	})
}

func TestManyDescriptorsTravelInOneFrame(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(pair[:])
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	files := make([]int, 3*batch+1)
	for i := range files {
		files[i] = int(null.Fd())
	}
	sent := make(chan error)
	go func() { sent <- Send(pair[0], []byte("body"), files) }()
	body, got, err := Receive(pair[1])
	defer CloseAll(got)
	if err != nil || !bytes.Equal(body, []byte("body")) || len(got) != len(files) {
		t.Fatalf("received %q, %d descriptors, %v; want %d", body, len(got), err, len(files))
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestTooManyDescriptorsAreRefusedAndTheSocketGoesOn(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(pair[:])
	files := make([]int, batch+10)
	for i := range files {
		files[i] = pair[0]
	}
	// All of the first batch are lost, or the last of the second one.
	for _, room := range []int{0, 5, batch + 5} {
		var before unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		first, err := unix.Dup(pair[0]) // no number below it is free
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(first)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(first + room), Max: before.Max}); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error)
		go func() {
			sent <- errors.Join(Send(pair[0], []byte("many"), files), Send(pair[0], []byte("next"), nil))
		}()
		_, got, err := Receive(pair[1])
		if err != unix.EMFILE || len(got) > 0 {
			t.Errorf("room for %d: %d descriptors, %v; want EMFILE", room, len(got), err)
		}
		body, _, err := Receive(pair[1])
		if err != nil || string(body) != "next" {
			t.Errorf("room for %d: the next frame is %q, %v", room, body, err)
		}
		if err := errors.Join(<-sent, unix.Setrlimit(unix.RLIMIT_NOFILE, &before)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeerThatGoesAwayIsAnError(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	unix.Write(pair[0], []byte{9, 0})
	unix.Close(pair[0])
	if _, _, err := Receive(pair[1]); err != unix.ECONNRESET {
		t.Fatalf("Receive gave %v, want ECONNRESET", err)
	}
}
