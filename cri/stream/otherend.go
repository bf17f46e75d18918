package stream

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A client that leaves while we do not read, as its program takes no input,
// says so behind all that it has sent, which the kernel cannot bring us before
// we read. But most clients are on this node, where the kernel can be asked for
// the other end of a connection (sock_diag(7)). Of others we hear when their
// kernel gives up, after minutes.

// othersEnd tells whether who is at the other end has closed it. It is false
// where that is not known.
func othersEnd(ours, theirs net.Addr) bool {
	here, ok := ours.(*net.TCPAddr)
	there, okay := theirs.(*net.TCPAddr)
	if !ok || !okay {
		return false
	}
	state, err := socketState(there, here)
	return err == nil && slices.Contains(closing, state)
}

// closing are the states that only a socket has that was closed at its end. For
// one that is not on this node the kernel may answer with whoever listens on
// its port here, which tells nothing.
var closing = []byte{
	4,  // TCP_FIN_WAIT1
	5,  // TCP_FIN_WAIT2
	6,  // TCP_TIME_WAIT
	7,  // TCP_CLOSE
	9,  // TCP_LAST_ACK
	11, // TCP_CLOSING
}

// socketState asks the kernel for the TCP state of a socket of this node
// (include/uapi/linux/inet_diag.h).
//
//	nlmsghdr          length:32 type:16 flags:16 sequence:32 port:32
//	inet_diag_req_v2  family:8 protocol:8 extensions:8 0 states:32 | sockid
//	inet_diag_sockid  sport:16 dport:16 source:128 destination:128 device:32 cookie:64
//	inet_diag_msg     family:8 state:8 ...
func socketState(local, remote *net.TCPAddr) (byte, error) {
	const header, request, cookie = 16, 56, 8
	b := make([]byte, header+request)
	native := binary.NativeEndian
	native.PutUint32(b, header+request)
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	family, source, destination := byte(unix.AF_INET), local.IP.To4(), remote.IP.To4()
	if source == nil || destination == nil {
		family, source, destination = unix.AF_INET6, local.IP.To16(), remote.IP.To16()
	}
	b[header], b[header+1] = family, unix.IPPROTO_TCP
	native.PutUint32(b[header+4:], ^uint32(0))
	id := b[header+8:]
	binary.BigEndian.PutUint16(id, uint16(local.Port))
	binary.BigEndian.PutUint16(id[2:], uint16(remote.Port))
	copy(id[4:], source)
	copy(id[20:], destination)
	for i := range cookie { // none
		id[len(id)-1-i] = 0xff
	}

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	// It answers at once; this is against what we do not know.
	patience := unix.NsecToTimeval(time.Second.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return 0, err
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return 0, err
	}
	if n < header+4 || native.Uint16(answer[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return 0, errors.New("no such socket on this node")
	}
	return answer[header+1], nil
}
