package stream

import (
	"net"
	"testing"
)

func TestListenerOnTheClientsPortIsNotTheClient(t *testing.T) {
	other, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	away := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 5), Port: other.Addr().(*net.TCPAddr).Port}
	here := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10010}
	if state, err := socketState(away, here); err != nil || state != 10 {
		t.Logf("the kernel says state %d, %v", state, err)
	}
	if othersEnd(here, away) {
		t.Error("a client elsewhere is said to have closed its connection")
	}
}
