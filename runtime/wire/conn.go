package wire

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A frame on the socket is its length (4 bytes), the number of descriptors (2
// bytes) and the body. The descriptors travel with marker bytes before the
// body, at most batch of them with one: the kernel's limit is 253 (SCM_MAX_FD).
const (
	frameHead = 6
	batch     = 240
	maxFrame  = 16 << 20
	maxFiles  = 4096
)

// Send writes a frame on a blocking socket.
func Send(socket int, body []byte, files []int) error {
	head := make([]byte, frameHead, frameHead+len(body))
	binary.LittleEndian.PutUint32(head, uint32(len(body)))
	binary.LittleEndian.PutUint16(head[4:], uint16(len(files)))
	if len(files) == 0 {
		return writeAll(socket, append(head, body...))
	}
	if err := writeAll(socket, head); err != nil {
		return err
	}
	for len(files) > batch {
		if err := sendFiles(socket, []byte{0}, files[:batch]); err != nil {
			return err
		}
		files = files[batch:]
	}
	// The body goes with the last marker: each message wakes the reader.
	return sendFiles(socket, append([]byte{0}, body...), files)
}

// sendFiles sends bytes, with the descriptors at the first of them.
func sendFiles(socket int, b []byte, files []int) error {
	for {
		n, err := unix.SendmsgN(socket, b, unix.UnixRights(files...), nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		return writeAll(socket, b[n:])
	}
}

func writeAll(socket int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(socket, b, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Receive reads a frame from a blocking socket. A peer that has gone is
// unix.ECONNRESET; the descriptors are close-on-exec and the caller's. Where we
// have room for too few of them the error is unix.EMFILE, nobody has any, and
// the socket is good for the next frame.
func Receive(socket int) (body []byte, files []int, err error) {
	head := make([]byte, frameHead)
	if err := readAll(socket, head); err != nil {
		return nil, nil, err
	}
	size, count := binary.LittleEndian.Uint32(head), int(binary.LittleEndian.Uint16(head[4:]))
	if size > maxFrame || count > maxFiles {
		return nil, nil, unix.EBADMSG
	}
	var lost bool
	for done := 0; done < count; done += batch {
		more, complete, err := receiveFiles(socket)
		files = append(files, more...)
		if err != nil {
			CloseAll(files)
			return nil, nil, err
		}
		lost = lost || !complete
	}
	body = make([]byte, size)
	if err = readAll(socket, body); err == nil && lost {
		err = unix.EMFILE
	}
	if err == nil && len(files) != count {
		err = unix.EBADMSG
	}
	if err != nil {
		CloseAll(files)
		return nil, nil, err
	}
	return body, files, nil
}

// receiveFiles reads one batch; it is not complete when the kernel had to drop
// some.
func receiveFiles(socket int) (files []int, complete bool, err error) {
	control := make([]byte, unix.CmsgSpace(4*batch))
	for {
		n, used, flags, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if n == 0 {
			return nil, false, unix.ECONNRESET
		}
		messages, err := unix.ParseSocketControlMessage(control[:used])
		for i := range messages {
			rights, bad := unix.ParseUnixRights(&messages[i])
			if bad != nil {
				err = bad
			}
			files = append(files, rights...)
		}
		return files, flags&unix.MSG_CTRUNC == 0 && len(files) > 0, err
	}
}

func readAll(socket int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(socket, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.ECONNRESET
		}
		b = b[n:]
	}
	return nil
}

// CloseAll closes descriptors.
func CloseAll(files []int) {
	for _, fd := range files {
		unix.Close(fd)
	}
}
