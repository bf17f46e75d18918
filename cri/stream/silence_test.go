package stream

import (
	"fmt"
	"net"
	"os"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// elsewhere runs do in a network namespace of its own; the thread ends with it.
func elsewhere(t *testing.T, do func() error) *os.File {
	t.Helper()
	type made struct {
		ns  *os.File
		err error
	}
	done := make(chan made)
	go func() {
		goruntime.LockOSThread()
		m := made{err: unix.Unshare(unix.CLONE_NEWNET)}
		if m.err == nil {
			m.ns, m.err = os.Open("/proc/thread-self/ns/net")
		}
		if m.err == nil {
			m.err = do()
		}
		done <- m
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { m.ns.Close() })
	return m.ns
}

func address(device, cidr string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// A client whose machine loses power sends nothing, not even an end.
func TestExecDiesWithAClientThatFallsSilent(t *testing.T) {
	noGoroutines(t)
	before := keepAlive
	keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}
	t.Cleanup(func() { keepAlive = before })

	m := newMachine()
	var s *Server
	node := elsewhere(t, func() (err error) {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "node"}, PeerName: "client"}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if err := address("node", "192.0.2.1/24"); err != nil {
			return err
		}
		s, err = Listen(Config{Address: "192.0.2.1:0", Plain: true})
		return err
	})
	served := make(chan error, 1)
	go func() { served <- s.Serve(m) }()
	defer func() {
		s.Close()
		<-served
	}()
	url := execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdin: true, Stdout: true})

	var raw net.Conn
	client := elsewhere(t, func() error {
		here, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer here.Close()
		there, err := netlink.NewHandleAt(netns.NsHandle(int(node.Fd())))
		if err != nil {
			return err
		}
		defer there.Close()
		link, err := there.LinkByName("client")
		if err != nil {
			return err
		}
		if err := there.LinkSetNsFd(link, int(here.Fd())); err != nil {
			return err
		}
		if err := address("client", "192.0.2.2/24"); err != nil {
			return err
		}
		raw, err = net.Dial("tcp", s.Address())
		return err
	})
	c := speakSPDY(t, raw, url, v4)
	c.stream("streamType", "error")
	c.stream("streamType", "stdout")
	c.stream("streamType", "stdin")
	pid := <-m.started
	h, err := netlink.NewHandleAt(netns.NsHandle(int(client.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName("client")
	if err == nil {
		err = h.LinkSetDown(link)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("cut the line: %w", err))
	}
	eventually(t, "the program is dead", func() bool { return gone(pid) })
}
