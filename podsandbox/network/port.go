package network

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/firewall"
	"cri-mini/podsandbox/network/internal/listener"
)

// PortMapping makes a port of a pod reachable at the host's addresses.
//
// HostPort 0 means that it is not. A HostIP that is not valid means every
// address of the host; 0.0.0.0 means every IPv4, :: every IPv6 address.
type PortMapping struct {
	Protocol      string // tcp, udp or sctp, in any case; empty means tcp
	ContainerPort uint16
	HostPort      uint16
	HostIP        netip.Addr `json:",omitzero"`
}

func (p PortMapping) String() string {
	at := fmt.Sprintf("%s port %d", p.Protocol, p.HostPort)
	if p.HostIP.IsValid() {
		at += " on " + p.HostIP.String()
	}
	return at
}

// plain is the one spelling of a mapping.
func (p PortMapping) plain() PortMapping {
	if p.Protocol = strings.ToLower(p.Protocol); p.Protocol == "" {
		p.Protocol = "tcp"
	}
	p.HostIP = p.HostIP.Unmap()
	return p
}

func (p PortMapping) number() uint8 {
	switch p.Protocol {
	case "tcp":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_SCTP
}

// hostPorts checks port mappings and leaves those with a host port, spelled in
// one way and without repetitions.
func hostPorts(asked []PortMapping) ([]PortMapping, error) {
	var ports []PortMapping
	for i, p := range asked {
		p = p.plain()
		if p.Protocol != "tcp" && p.Protocol != "udp" && p.Protocol != "sctp" {
			return nil, portError(i, "protocol", p.Protocol, true, "is not one of tcp, udp, sctp")
		}
		if p.HostPort == 0 {
			continue
		}
		if p.ContainerPort == 0 {
			return nil, portError(i, "container_port", 0, true, "cannot be reached by %s", p)
		}
		if p.HostIP.Zone() != "" {
			return nil, portError(i, "host_ip", p.HostIP, true, "an address with a zone is not supported")
		}
		repeated := false
		for _, q := range ports {
			if p == q {
				repeated = true
			} else if p.conflicts(q) {
				return nil, portError(i, "host_port", p.HostPort, true, "%s leads to container port %d and to %d", p, q.ContainerPort, p.ContainerPort)
			}
		}
		if !repeated {
			ports = append(ports, p)
		}
	}
	return ports, nil
}

// conflicts tells whether some packet could be meant for both.
func (p PortMapping) conflicts(q PortMapping) bool {
	if p.Protocol != q.Protocol || p.HostPort != q.HostPort {
		return false
	}
	if !p.HostIP.IsValid() || !q.HostIP.IsValid() {
		return true
	}
	if p.HostIP.Is4() != q.HostIP.Is4() {
		return false
	}
	return p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified() || p.HostIP == q.HostIP
}

// translations are the entries of the firewall for a pod's ports.
func translations(ports []PortMapping, addresses []netip.Prefix) []firewall.Port {
	var all []firewall.Port
	for _, p := range ports {
		for _, a := range addresses {
			if p.HostIP.IsValid() && p.HostIP.Is4() != a.Addr().Is4() {
				continue
			}
			all = append(all, firewall.Port{
				Protocol: p.number(), HostIP: p.HostIP, HostPort: p.HostPort,
				Pod: netip.AddrPortFrom(a.Addr(), p.ContainerPort),
			})
		}
	}
	return all
}

// reservations are the host ports of all pods, by number.
type reservations map[uint16][]reservation

type reservation struct {
	PortMapping
	pod   string
	title string
}

// reserve takes ports for a pod, all or none.
func (r reservations) reserve(rec *record) error {
	for _, p := range rec.Ports {
		for _, q := range r[p.HostPort] {
			if q.pod != rec.ID && p.conflicts(q.PortMapping) {
				return &takenError{p, q.title}
			}
		}
	}
	r.restore(rec)
	return nil
}

// restore takes ports without asking.
func (r reservations) restore(rec *record) {
	for _, p := range rec.Ports {
		r[p.HostPort] = append(r[p.HostPort], reservation{p, rec.ID, rec.title()})
	}
}

func (r reservations) release(rec *record) {
	for _, p := range rec.Ports {
		var rest []reservation
		for _, q := range r[p.HostPort] {
			if q.pod != rec.ID {
				rest = append(rest, q)
			}
		}
		if r[p.HostPort] = rest; len(rest) == 0 {
			delete(r, p.HostPort)
		}
	}
}

// checkListeners fails when a process of the host listens on one of the ports:
// it would be cut off without a word.
func (n *Network) checkListeners(ports []PortMapping) error {
	for _, p := range ports {
		owner, err := listener.Find(n.diag, p.number(), p.HostIP, p.HostPort)
		if err != nil {
			return err
		}
		if owner != "" {
			return &takenError{p, owner}
		}
	}
	return nil
}
