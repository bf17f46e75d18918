package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/netns"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.IPv6Loopback()
)

func TestHostPortsWorkFromEverywhere(t *testing.T) {
	for _, bridged := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+bridged, func(t *testing.T) {
			w := newWorld(t)
			setBridgeNetfilter(t, w.host, bridged)
			w.open()
			a := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}}, PortMapping{"UDP", 80, 8080, netip.Addr{}})
			b := w.pod()
			resA, resB := w.setup(a), w.setup(b)
			serve(t, a.NetNSFile, "a", 80)
			gw := w.net.builtin.pool.Subnets()
			for _, protocol := range []string{"tcp", "udp"} {
				t.Run(protocol, func(t *testing.T) {
					for i, v := range []struct{ host, outside, loopback netip.Addr }{
						{hostIP, outsideIP, loopback4}, {hostIP6, outsideIP6, loopback6},
					} {
						gateway := gw[i].Addr().Next()
						wantAnswer(t, w.outside, protocol, v.host, 8080, "a "+v.outside.String())
						if v.loopback.Is4() || bridged == "0" { // see the package comment of firewall
							wantAnswer(t, w.host, protocol, v.loopback, 8080, "a "+gateway.String())
						}
						wantAnswer(t, w.host, protocol, v.host, 8080, "a "+v.host.String())
						wantAnswer(t, w.host, protocol, gateway, 8080, "a "+gateway.String())
						wantAnswer(t, b.NetNSFile, protocol, v.host, 8080, "a "+gateway.String())
						wantAnswer(t, b.NetNSFile, protocol, gateway, 8080, "a "+gateway.String())
						wantAnswer(t, a.NetNSFile, protocol, v.host, 8080, "a "+gateway.String())
						wantAnswer(t, b.NetNSFile, protocol, resA.IPs[i], 80, "a "+resB.IPs[i].String())
						wantNoAnswer(t, w.outside, protocol, v.host, 80)
					}
				})
			}
			w.teardown(a)
			wantNoAnswer(t, w.outside, "tcp", hostIP, 8080)
			wantNoAnswer(t, w.host, "tcp", loopback4, 8080)
		})
	}
}

func setBridgeNetfilter(t *testing.T, host *os.File, value string) {
	must(t, netns.Do(host, func() error {
		for _, name := range []string{"iptables", "ip6tables"} {
			path := "/proc/sys/net/bridge/bridge-nf-call-" + name
			err := os.WriteFile(path, []byte(value), 0)
			if os.IsNotExist(err) && value == "0" {
				continue // the kernel does not have it
			}
			if os.IsNotExist(err) {
				t.Skip("kernel feature missing: br_netfilter")
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestHostIPIsHonoured(t *testing.T) {
	w := newWorld(t)
	w.open()
	a := w.pod(PortMapping{"tcp", 80, 8080, hostIP}, PortMapping{"tcp", 80, 8081, loopback4},
		PortMapping{"tcp", 80, 8082, netip.IPv4Unspecified()}, PortMapping{"tcp", 80, 8083, netip.IPv6Unspecified()})
	b := w.pod(PortMapping{"tcp", 80, 8080, loopback4})
	w.setup(a)
	w.setup(b)
	serve(t, a.NetNSFile, "a", 80)
	serve(t, b.NetNSFile, "b", 80)
	gateway := w.net.builtin.pool.Subnets()[0].Addr().Next().String()
	wantAnswer(t, w.outside, "tcp", hostIP, 8080, "a "+outsideIP.String())
	wantAnswer(t, w.host, "tcp", loopback4, 8080, "b "+gateway)
	wantNoAnswer(t, w.outside, "tcp", hostIP6, 8080)
	wantNoAnswer(t, w.outside, "tcp", hostIP, 8081)
	wantAnswer(t, w.host, "tcp", loopback4, 8081, "a "+gateway)
	wantAnswer(t, w.outside, "tcp", hostIP, 8082, "a "+outsideIP.String())
	wantNoAnswer(t, w.outside, "tcp", hostIP6, 8082)
	wantNoAnswer(t, w.outside, "tcp", hostIP, 8083)
	wantAnswer(t, w.outside, "tcp", hostIP6, 8083, "a "+outsideIP6.String())
	// b's going must not close what a has on the same number.
	w.teardown(b)
	wantAnswer(t, w.outside, "tcp", hostIP, 8080, "a "+outsideIP.String())
	wantAnswer(t, b.NetNSFile, "tcp", hostIP, 8080, "a "+gateway)
	wantNoAnswer(t, w.host, "tcp", loopback4, 8080)
}

// An SCTP stack is not needed to translate SCTP: a raw socket sends the first
// chunk of a conversation, another one in the pod receives it.
func TestSCTPHostPortReachesThePod(t *testing.T) {
	w := newWorld(t)
	w.open()
	a := w.pod(PortMapping{"sctp", 7000, 7777, netip.Addr{}})
	w.setup(a)
	var in, out net.PacketConn
	must(t, netns.Do(a.NetNSFile, func() (err error) {
		in, err = net.ListenPacket("ip4:132", "0.0.0.0")
		return err
	}))
	defer in.Close()
	must(t, netns.Do(w.outside, func() (err error) {
		out, err = net.ListenPacket("ip4:132", "0.0.0.0")
		return err
	}))
	defer out.Close()
	if _, err := out.WriteTo(sctpInit(5000, 7777), &net.IPAddr{IP: hostIP.AsSlice()}); err != nil {
		t.Fatal(err)
	}
	in.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 1500)
	n, from, err := in.ReadFrom(buf)
	if err != nil || n < 12 || from.String() != outsideIP.String() || int(buf[2])<<8|int(buf[3]) != 7000 {
		t.Fatalf("pod received %x from %v, %v; want a packet from %s to port 7000", buf[:n], from, err, outsideIP)
	}
}

func TestHostPortConflictNamesPortAndOwner(t *testing.T) {
	w := newWorld(t)
	w.open()
	first := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}}, PortMapping{"udp", 80, 5353, hostIP})
	w.setup(first)
	listen := func(protocol, at string) {
		must(t, netns.Do(w.host, func() error {
			if strings.HasPrefix(protocol, "tcp") {
				l, err := net.Listen(protocol, at)
				if err == nil {
					t.Cleanup(func() { l.Close() })
				}
				return err
			}
			l, err := net.ListenPacket(protocol, at)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}))
	}
	listen("tcp4", "127.0.0.1:9000")
	listen("tcp", "[::]:9001")
	listen("udp4", "0.0.0.0:9002")
	listen("tcp6", "[::1]:9003")
	me := fmt.Sprintf("process %d (", os.Getpid())
	for _, c := range []struct {
		port PortMapping
		want string // in the error; empty: no error
	}{
		{PortMapping{"tcp", 1, 8080, netip.Addr{}}, `port_mappings[0].host_port "8080": tcp port 8080 is taken by pod default/pod-1 (pod-1)`},
		{PortMapping{"tcp", 1, 8080, hostIP}, `port_mappings[0].host_port "8080": tcp port 8080 on 192.0.2.1 is taken by pod default/pod-1 (pod-1)`},
		{PortMapping{"udp", 1, 8080, netip.Addr{}}, ""},
		{PortMapping{"udp", 1, 5353, hostIP}, `port_mappings[0].host_port "5353": udp port 5353 on 192.0.2.1 is taken by pod default/pod-1`},
		{PortMapping{"udp", 1, 5353, loopback4}, ""},
		{PortMapping{"udp", 1, 5353, netip.IPv6Unspecified()}, ""},
		{PortMapping{"tcp", 1, 9000, netip.Addr{}}, `port_mappings[0].host_port "9000": tcp port 9000 is taken by ` + me},
		{PortMapping{"tcp", 1, 9000, loopback4}, "on 127.0.0.1:9000"},
		{PortMapping{"tcp", 1, 9000, hostIP}, ""},
		{PortMapping{"tcp", 1, 9000, hostIP6}, ""},
		{PortMapping{"tcp", 1, 9001, hostIP}, me},
		{PortMapping{"tcp", 1, 9001, hostIP6}, me},
		{PortMapping{"udp", 1, 9002, netip.Addr{}}, `port_mappings[0].host_port "9002": udp port 9002 is taken by ` + me},
		{PortMapping{"udp", 1, 9002, hostIP6}, ""},
		{PortMapping{"tcp", 1, 9002, netip.Addr{}}, ""},
		{PortMapping{"tcp", 1, 9003, hostIP}, ""},
		{PortMapping{"tcp", 1, 9003, netip.IPv4Unspecified()}, ""},
		{PortMapping{"tcp", 1, 9003, netip.Addr{}}, me},
		{PortMapping{"sctp", 1, 9001, netip.Addr{}}, ""},
		{PortMapping{"tcp", 1, 0, netip.Addr{}}, ""},
		{PortMapping{"icmp", 1, 9, netip.Addr{}}, `port_mappings[0].protocol "icmp": is not one of tcp, udp, sctp`},
		{PortMapping{"tcp", 0, 9, netip.Addr{}}, `port_mappings[0].container_port "0": cannot be reached by tcp port 9`},
	} {
		p := w.pod(c.port)
		_, err := w.net.Setup(t.Context(), p)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v; want no error", c.port, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v; want one with %q", c.port, err, c.want)
		}
		if _, ok := w.net.Result(p.ID); ok != (err == nil) {
			t.Errorf("%s: Result says %v after %v", c.port, ok, err)
		}
		w.teardown(p)
	}
	w.teardown(first)
	again := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}}, PortMapping{"udp", 80, 5353, hostIP})
	w.setup(again)
}

// A client that keeps sending from one port must reach the new owner of a host
// port soon, not the old one's address as long as it sends.
func TestUDPClientFollowsTheHostPort(t *testing.T) {
	w := newWorld(t)
	w.open()
	var client net.Conn
	must(t, netns.Do(w.outside, func() (err error) {
		client, err = net.Dial("udp", netip.AddrPortFrom(hostIP, 5300).String())
		return err
	}))
	defer client.Close()
	client.Write([]byte("?")) // before anybody is there
	time.Sleep(50 * time.Millisecond)
	for _, name := range []string{"first", "second"} {
		p := w.pod(PortMapping{"udp", 53, 5300, netip.Addr{}})
		w.setup(p)
		serve(t, p.NetNSFile, name, 53)
		var got string
		var err error
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			client.Write([]byte("?"))
			client.SetReadDeadline(time.Now().Add(25 * time.Millisecond))
			buf := make([]byte, 100)
			var n int
			if n, err = client.Read(buf); err == nil && strings.HasPrefix(string(buf), name) {
				got = string(buf[:n])
				break
			}
		}
		if want := name + " " + outsideIP.String(); got != want {
			t.Fatalf("answer %q, %v; want %q", got, err, want)
		}
		w.teardown(p)
	}
}

// route_localnet on the bridge must not open the host's own loopback services.
func TestPodCannotReachTheLoopbackOfTheHost(t *testing.T) {
	w := newWorld(t)
	w.open()
	a := w.pod()
	w.setup(a)
	serve(t, w.host, "host", 6000)
	gateway := w.net.builtin.pool.Subnets()[0].Addr().Next()
	must(t, netns.Do(a.NetNSFile, func() error {
		for _, s := range []string{"all", "eth0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+s+"/route_localnet", []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	}))
	probe := func() (seen bool) {
		var out, in net.PacketConn
		must(t, netns.Do(w.host, func() (err error) {
			in, err = net.ListenPacket("ip4:253", "127.0.0.1")
			return err
		}))
		defer in.Close()
		must(t, netns.Do(a.NetNSFile, func() (err error) {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			_ = out
			return sendLoopback(fd, w, gateway)
		}))
		in.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, _, err := in.ReadFrom(make([]byte, 100))
		return err == nil
	}
	if probe() {
		t.Error("a packet of the pod to 127.0.0.1 reached the host")
	}
	must(t, w.net.builtin.firewall.Delete())
	if !probe() {
		t.Error("the probe does not reach the host without the firewall either: the test proves nothing")
	}
}
