package network

import (
	"bytes"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/netns"
)

// A new pod tells the multicast groups of its addresses. If all others heard of
// it, the start of a pod would cost the more the more there are.
func TestWhatAPodSendsToManyReachesNoOtherPod(t *testing.T) {
	w := newWorld(t)
	w.open()
	a, b := w.pod(), w.pod()
	w.setup(a)
	listening := packetSocket(t, a.NetNSFile, "eth0")
	w.setup(b)
	sending := packetSocket(t, b.NetNSFile, "eth0")
	bridge := packetSocket(t, w.host, w.net.builtin.bridge.Name)
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	sending.send(broadcast, "pod")
	sending.send(allNodes, "pod")
	bridge.send(broadcast, "host")
	bridge.send(allNodes, "host")
	for range 2 { // what comes last came: nothing else is on its way
		if got := listening.receive(); got != "host" {
			t.Errorf("a pod got %q; want to hear of the host alone", got)
		}
	}
}

// wire sends and receives whole frames of a type that nobody else uses.
type wire struct {
	t  *testing.T
	fd int
}

const frameType = 0x88b5 // for experiments

func packetSocket(t *testing.T, ns *os.File, device string) wire {
	t.Helper()
	s := wire{t, -1}
	must(t, netns.Do(ns, func() (err error) {
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: frameType>>8 | frameType&0xff<<8, Ifindex: i.Index})
	}))
	t.Cleanup(func() { unix.Close(s.fd) })
	must(t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}))
	return s
}

func (s wire) send(to net.HardwareAddr, text string) {
	s.t.Helper()
	frame := append(append([]byte{}, to...), 6, 0, 0, 0, 0, 1, frameType>>8, frameType&0xff)
	_, err := unix.Write(s.fd, append(frame, text...))
	must(s.t, err)
}

func (s wire) receive() string {
	s.t.Helper()
	frame := make([]byte, 100)
	n, err := unix.Read(s.fd, frame)
	must(s.t, err)
	return string(bytes.TrimRight(frame[14:n], "\x00"))
}
