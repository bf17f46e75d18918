package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Ports lists the host ports that the kernel has; none when there is no table.
func (t *Table) Ports() ([]Port, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if present, err := t.present(); !present {
		return nil, err
	}
	c, err := t.conn()
	if err != nil {
		return nil, err
	}
	var all []Port
	for i, h := range maps {
		elements, err := c.GetSetElements(h.set(t.table(), uint32(i+1)))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("nftables table %s: %w", t.name, err), t.reset())
		}
		for _, e := range elements {
			if p, ok := h.port(e); ok {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// port is the opposite of key and target.
func (h hostPorts) port(e nftables.SetElement) (p Port, ok bool) {
	size := 4
	if h.ipv6 {
		size = 16
	}
	key := e.Key
	if h.hostIP {
		if len(key) < size {
			return p, false
		}
		p.HostIP, _ = netip.AddrFromSlice(key[:size])
		key = key[size:]
	}
	if len(key) < 8 || len(e.Val) < size+2 {
		return p, false
	}
	p.Protocol, p.HostPort = key[0], binary.BigEndian.Uint16(key[4:])
	pod, _ := netip.AddrFromSlice(e.Val[:size])
	p.Pod = netip.AddrPortFrom(pod, binary.BigEndian.Uint16(e.Val[size:]))
	return p, true
}

// String is like "tcp 127.0.0.1:8080 to 10.88.0.2:80".
func (p Port) String() string {
	protocol := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}[p.Protocol]
	host := "*"
	if !anyAddress(p.HostIP) {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("%s %s:%d to %s", protocol, host, p.HostPort, p.Pod)
}
