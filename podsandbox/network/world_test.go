package network

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// TestMain runs the tests in a network and a view of /sys of their own, so that
// they neither touch the machine's network nor see what others do to it.
func TestMain(m *testing.M) {
	if os.Getenv("CRASH_TEST_DIR") != "" { // it is to be killed, and starts in the network of its parent
		os.Exit(m.Run())
	}
	const mark = "NETWORK_TEST_IS_PRIVATE"
	if os.Getenv(mark) == "" {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), mark+"=1")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
		if err := c.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		fmt.Fprintln(os.Stderr, "mount /sys:", err)
		os.Exit(1)
	}
	leakcheck.Main(m)
}

// world is a host of its own, with one network card whose other end is a
// machine outside. The machine that runs the test is not touched.
type world struct {
	t       testing.TB
	host    *os.File
	outside *os.File
	opt     Options
	net     *Network
	pods    atomic.Int32
}

var (
	hostIP     = netip.MustParseAddr("192.0.2.1")
	hostIP6    = netip.MustParseAddr("2001:db8::1")
	outsideIP  = netip.MustParseAddr("192.0.2.2")
	outsideIP6 = netip.MustParseAddr("2001:db8::2")
)

func newWorld(t testing.TB) *world {
	w := &world{t: t, host: newNS(t), outside: newNS(t)}
	w.opt = Options{
		Mode: ModeBuiltin, IPv6: true, StateDir: filepath.Join(t.TempDir(), "network"),
		Instance: t.Name(), Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	must(t, SetupLoopback(w.host))
	must(t, SetupLoopback(w.outside))
	must(t, netns.Do(w.host, func() error {
		route, err := rtnl.Open(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer route.Close()
		var b rtnl.Batch
		b.NewVeth(rtnl.Veth{Name: "uplink", PeerName: "uplink", PeerMAC: []byte{2, 0, 0, 0, 0, 9}, PeerNS: int(w.outside.Fd())})
		if err := route.Do(&b); err != nil {
			return err
		}
		return address(route, "uplink", hostIP, hostIP6)
	}))
	must(t, netns.Do(w.outside, func() error {
		route, err := rtnl.Open(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer route.Close()
		return address(route, "uplink", outsideIP, outsideIP6)
	}))
	w.do(func(route *rtnl.Socket) error {
		var b rtnl.Batch
		b.Settle("uplink")
		return route.Do(&b)
	})
	return w
}

func address(route *rtnl.Socket, link string, v4, v6 netip.Addr) error {
	index, err := route.Index(link)
	if err != nil {
		return err
	}
	var b rtnl.Batch
	b.LinkUp(index)
	b.AddAddr(index, netip.PrefixFrom(v4, 24))
	b.AddAddr(index, netip.PrefixFrom(v6, 64))
	b.Settle(link)
	return route.Do(&b)
}

// open starts, or starts again, the network of the host.
func (w *world) open() *Network {
	w.t.Helper()
	if w.net != nil {
		must(w.t, w.net.Close())
		w.net = nil
	}
	must(w.t, netns.Do(w.host, func() (err error) {
		w.net, err = Open(w.opt)
		return err
	}))
	w.t.Cleanup(func() {
		if w.net != nil {
			must(w.t, w.net.Close())
			w.net = nil
		}
	})
	return w.net
}

// pod is a pod with a namespace, not connected yet.
func (w *world) pod(ports ...PortMapping) Pod {
	w.t.Helper()
	id := fmt.Sprintf("pod-%d", w.pods.Add(1))
	return Pod{ID: id, Name: id, Namespace: "default", UID: "uid-" + id, NetNSFile: newNS(w.t), Ports: ports}
}

func (w *world) setup(p Pod) Result {
	w.t.Helper()
	res, err := w.net.Setup(w.t.Context(), p)
	must(w.t, err)
	return res
}

func (w *world) teardown(p Pod) {
	w.t.Helper()
	must(w.t, w.net.Teardown(w.t.Context(), p))
}

func newNS(t testing.TB) *os.File {
	t.Helper()
	ns, err := netns.New()
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	return ns
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// serve answers every TCP connection and UDP packet to the port with
// "name seen-client-address".
func serve(t testing.TB, ns *os.File, name string, port uint16) {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	must(t, netns.Do(ns, func() (err error) {
		at := fmt.Sprintf("[::]:%d", port)
		if tcp, err = net.Listen("tcp", at); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp", at)
		return err
	}))
	t.Cleanup(func() { tcp.Close(); udp.Close() })
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", name, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo(fmt.Appendf(nil, "%s %s", name, from.(*net.UDPAddr).AddrPort().Addr().Unmap()), from)
		}
	}()
}

// ask connects from a namespace and returns the answer.
func ask(ns *os.File, protocol string, to netip.Addr, port uint16) (string, error) {
	var conn net.Conn
	err := netns.Do(ns, func() (err error) {
		conn, err = net.DialTimeout(protocol, netip.AddrPortFrom(to, port).String(), 2*time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return exchange(conn)
}

func exchange(conn net.Conn) (string, error) {
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, udp := conn.(*net.UDPConn); udp {
		if _, err := conn.Write([]byte("?")); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		return string(buf[:n]), err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// wantAnswer asks and compares.
func wantAnswer(t *testing.T, ns *os.File, protocol string, to netip.Addr, port uint16, want string) {
	t.Helper()
	if got, err := ask(ns, protocol, to, port); err != nil || got != want {
		t.Errorf("%s to %s port %d: answer %q, %v; want %q", protocol, to, port, got, err, want)
	}
}

func wantNoAnswer(t *testing.T, ns *os.File, protocol string, to netip.Addr, port uint16) {
	t.Helper()
	if got, err := ask(ns, protocol, to, port); err == nil {
		t.Errorf("%s to %s port %d: answer %q; want none", protocol, to, port, got)
	}
}
