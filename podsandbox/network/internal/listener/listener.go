// Package listener tells which process of the host listens on a port.
//
// The kernel's socket diagnosis answers for one port at a time; the process is
// looked up only when there is something to report.
package listener

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/rtnl"
)

// Numbers of linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
const (
	sockDiagByFamily = 20
	diagV6Only       = 11
	stateClosed      = 1 << 7 // an unconnected UDP socket
	stateListen      = 1 << 10
	requestSize      = 56
	answerSize       = 72
)

// Find describes the socket that listens on a port at ip, or returns "". An
// ip that is not valid means every address of the host. diag is a
// NETLINK_SOCK_DIAG socket of the host's namespace.
func Find(diag *rtnl.Socket, protocol uint8, ip netip.Addr, port uint16) (string, error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		owner, err := find(diag, family, protocol, ip, port)
		if owner != "" || err != nil {
			return owner, err
		}
	}
	return "", nil
}

func find(diag *rtnl.Socket, family byte, protocol uint8, ip netip.Addr, port uint16) (string, error) {
	header := make([]byte, requestSize)
	header[0], header[1] = family, protocol
	states := uint32(stateListen)
	if protocol == unix.IPPROTO_UDP {
		states = stateClosed
	}
	binary.NativeEndian.PutUint32(header[4:], states)
	binary.BigEndian.PutUint16(header[8:], port)

	var b rtnl.Batch
	b.Begin(sockDiagByFamily, 0, header, fmt.Sprintf("look for listeners on port %d", port))
	var owner string
	err := diag.Dump(&b, func(payload []byte) error {
		if owner == "" && len(payload) >= answerSize && binary.BigEndian.Uint16(payload[4:]) == port {
			if local, hit := matches(payload, ip); hit {
				owner = describe(netip.AddrPortFrom(local, port), binary.NativeEndian.Uint32(payload[68:]))
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil // the kernel knows no such protocol, so nobody listens
	}
	return owner, err
}

// matches tells whether the socket would take what is sent to ip.
func matches(payload []byte, ip netip.Addr) (netip.Addr, bool) {
	var local netip.Addr
	if payload[0] == unix.AF_INET {
		local, _ = netip.AddrFromSlice(payload[8:12])
	} else {
		local, _ = netip.AddrFromSlice(payload[8:24])
	}
	if !ip.IsValid() {
		return local, true
	}
	both := local == netip.IPv6Unspecified() && !v6Only(payload)
	switch {
	case ip.Is4() != local.Unmap().Is4() && !both:
		return local, false
	case local.IsUnspecified(), ip.IsUnspecified():
		return local, true
	}
	return local, local.Unmap() == ip
}

func v6Only(payload []byte) bool {
	only := false
	rtnl.Attributes(payload[answerSize:], func(kind uint16, v []byte) {
		if kind == diagV6Only && len(v) > 0 {
			only = v[0] != 0
		}
	})
	return only
}

func describe(at netip.AddrPort, inode uint32) string {
	if pid, name := process(inode); pid != "" {
		return fmt.Sprintf("process %s (%s) on %s", pid, name, at)
	}
	return fmt.Sprintf("a socket of the host on %s", at)
}

func process(inode uint32) (pid, name string) {
	want := fmt.Sprintf("socket:[%d]", inode)
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, d := range descriptors {
		if target, err := os.Readlink(d); err != nil || target != want {
			continue
		}
		pid = strings.Split(d, "/")[2]
		comm, _ := os.ReadFile("/proc/" + pid + "/comm") // it may have ended
		return pid, strings.TrimSpace(string(comm))
	}
	return "", ""
}
