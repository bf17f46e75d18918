// Package rtnl speaks netlink to the kernel in batches: many messages in one
// write, one answer to read when all went well.
//
// A Socket belongs to the network namespace it was opened in. A Batch is a list
// of messages; each carries the words that its error will show. Dump reads a
// table. The package knows the wire format of links, addresses and routes, and
// nothing of pods.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Socket is a netlink socket. It is safe for concurrent use.
type Socket struct {
	mu     sync.Mutex // one request and its answer at a time
	fd     int
	seq    uint32
	answer []byte
}

// Open opens a socket of a netlink protocol, for example unix.NETLINK_ROUTE,
// in the calling thread's network namespace.
func Open(protocol int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// Errors need not quote the request back, which may be long.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Socket{fd: fd, answer: make([]byte, 32<<10)}, nil
}

// Close closes the socket. Closing twice is harmless.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// Do sends all messages at once and returns the first error. The kernel works
// on later messages even after one failed: the caller takes back what it must.
func (s *Socket) Do(b *Batch) error {
	if len(b.starts) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	b.end()
	first := s.seq + 1
	for i, at := range b.starts {
		s.seq++
		binary.NativeEndian.PutUint32(b.buf[at+8:], s.seq)
		if i == len(b.starts)-1 { // only the last need say that it went well
			flags := binary.NativeEndian.Uint16(b.buf[at+6:])
			binary.NativeEndian.PutUint16(b.buf[at+6:], flags|unix.NLM_F_ACK)
		}
	}
	if err := s.send(b.buf); err != nil {
		return err
	}
	var failed error
	for {
		done := false
		err := s.receive(func(kind uint16, seq uint32, payload []byte) error {
			if kind != unix.NLMSG_ERROR || seq < first || len(payload) < 4 {
				return nil
			}
			if code := int32(binary.NativeEndian.Uint32(payload)); code != 0 && failed == nil {
				failed = fmt.Errorf("%s: %w", b.what[seq-first], unix.Errno(-code))
			}
			done = done || seq == s.seq
			return nil
		})
		if err != nil {
			return errors.Join(failed, err)
		}
		if done {
			return failed
		}
	}
}

// Dump sends one message, as a dump request, and passes each object to fn with
// the header of its family still before the attributes.
func (s *Socket) Dump(b *Batch, fn func(payload []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	b.end()
	s.seq++
	binary.NativeEndian.PutUint16(b.buf[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b.buf[8:], s.seq)
	if err := s.send(b.buf); err != nil {
		return err
	}
	var failed error
	for done := false; !done; {
		err := s.receive(func(kind uint16, seq uint32, payload []byte) error {
			switch {
			case seq != s.seq || failed != nil && kind != unix.NLMSG_DONE:
			case kind == unix.NLMSG_DONE:
				done = true
			case kind == unix.NLMSG_ERROR && len(payload) >= 4:
				done = true
				failed = fmt.Errorf("%s: %w", b.what[0], unix.Errno(-int32(binary.NativeEndian.Uint32(payload))))
			default:
				failed = fn(payload)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return failed
}

func (s *Socket) send(data []byte) error {
	for {
		err := unix.Sendto(s.fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write to netlink: %w", err)
		}
		return nil
	}
}

// receive reads one datagram and walks its messages.
func (s *Socket) receive(fn func(kind uint16, seq uint32, payload []byte) error) error {
	n, _, err := unix.Recvfrom(s.fd, s.answer, 0)
	if err == unix.EINTR {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read from netlink: %w", err)
	}
	for data := s.answer[:n]; len(data) >= unix.NLMSG_HDRLEN; {
		size := int(binary.NativeEndian.Uint32(data))
		if size < unix.NLMSG_HDRLEN || size > len(data) {
			return fmt.Errorf("read from netlink: message of %d bytes in %d", size, len(data))
		}
		kind, seq := binary.NativeEndian.Uint16(data[4:]), binary.NativeEndian.Uint32(data[8:])
		if err := fn(kind, seq, data[unix.NLMSG_HDRLEN:size]); err != nil {
			return err
		}
		data = data[min(align(size), len(data)):]
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

// Index finds a device of the socket's namespace by its name.
func (s *Socket) Index(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface name %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := unix.IoctlIfreq(s.fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	return int(request.Uint32()), nil
}
