package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The file of a disk is a file system in user space that has one file and no
// folder. It is spoken as <linux/fuse.h> says; the file is opened so that the
// page cache keeps nothing of it, and each request is one of the loop device.
const (
	opGetattr   = 3
	opOpen      = 14
	opRead      = 15
	opWrite     = 16
	opRelease   = 18
	opFsync     = 20
	opFlush     = 25
	opInit      = 26
	opInterrupt = 36
	opDestroy   = 38
	opForget    = 2
	opForgets   = 42
	opFallocate = 43

	inHeader  = 40
	outHeader = 16
	writeHead = 40 // before the data of a write
	maxWrite  = 1 << 20

	protocolMajor, protocolMinor = 7, 31
	asyncRead, bigWrites         = 1 << 0, 1 << 5
	maxPages                     = 1 << 22
	directIO                     = 1
	longTime                     = 1 << 40 // seconds that attributes are good for
)

var le = binary.LittleEndian

func (d *Disk) mountFile() error {
	if err := os.WriteFile(d.file, nil, 0o600); err != nil {
		return err
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0", d.fuse.Fd(), unix.S_IFREG|0o600)
	if err := unix.Mount("powercut", d.file, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return &ErrUnsupported{"FUSE", err}
		}
		return fmt.Errorf("mount its file: %w", err)
	}
	return nil
}

func (d *Disk) unmountFile() error {
	err := unix.Unmount(d.file, unix.MNT_DETACH) // a device that is closed lets go of it a moment later
	if err == nil {
		<-d.done
	}
	return errors.Join(err, d.fuse.Close(), os.Remove(d.file))
}

// serve answers one request after the other until the file is unmounted.
func (d *Disk) serve(fd int) {
	defer close(d.done)
	in := make([]byte, inHeader+writeHead+maxWrite+Block)
	out := make([]byte, outHeader+maxWrite)
	for {
		n, err := unix.Read(fd, in)
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAGAIN):
			continue
		case err != nil || n < inHeader: // ENODEV: unmounted
			return
		}
		length, errno, silent := d.answer(le.Uint32(in[4:]), in[inHeader:n], out[outHeader:])
		if silent {
			continue
		}
		le.PutUint32(out, uint32(outHeader+length))
		le.PutUint32(out[4:], uint32(-int32(errno)))
		copy(out[8:16], in[8:16])
		if _, err := unix.Write(fd, out[:outHeader+length]); err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
	}
}

// answer does a request, and writes the body of what the kernel is told.
func (d *Disk) answer(op uint32, in, out []byte) (length int, errno unix.Errno, silent bool) {
	switch op {
	case opInit:
		return initialize(in, out), 0, false
	case opGetattr:
		return d.attributes(out), 0, false
	case opOpen:
		clear(out[:16])
		le.PutUint32(out[8:], directIO)
		return 16, 0, false
	case opRead:
		offset := int64(le.Uint64(in[8:]))
		n := max(0, min(int64(le.Uint32(in[16:])), d.size-offset, int64(len(out))))
		d.read(offset, out[:n])
		return int(n), 0, false
	case opWrite:
		offset, data := int64(le.Uint64(in[8:])), in[writeHead:]
		if offset+int64(len(data)) > d.size {
			return 0, unix.ENOSPC, false
		}
		d.write(offset, data)
		clear(out[:8])
		le.PutUint32(out, uint32(len(data)))
		return 8, 0, false
	case opFallocate: // how a loop device discards and writes zeros
		offset, length := int64(le.Uint64(in[8:])), int64(le.Uint64(in[16:]))
		if offset+length > d.size {
			return 0, unix.ENOSPC, false
		}
		d.write(offset, make([]byte, length))
		return 0, 0, false
	case opFsync:
		d.flush()
		return 0, 0, false
	case opFlush, opRelease, opDestroy:
		return 0, 0, false
	case opForget, opForgets, opInterrupt:
		return 0, 0, true
	}
	return 0, unix.ENOSYS, false
}

func initialize(in, out []byte) int {
	clear(out[:64])
	le.PutUint32(out, protocolMajor)
	le.PutUint32(out[4:], protocolMinor)
	le.PutUint32(out[8:], le.Uint32(in[8:])) // read-ahead, as the kernel wants
	le.PutUint32(out[12:], le.Uint32(in[12:])&(asyncRead|bigWrites|maxPages))
	le.PutUint32(out[20:], maxWrite)
	le.PutUint32(out[24:], 1)
	le.PutUint16(out[28:], maxWrite/Block)
	return 64
}

func (d *Disk) attributes(out []byte) int {
	clear(out[:104])
	le.PutUint64(out, longTime)
	a := out[16:]
	le.PutUint64(a, 1) // inode
	le.PutUint64(a[8:], uint64(d.size))
	le.PutUint64(a[16:], uint64(d.size/Sector))
	le.PutUint32(a[60:], unix.S_IFREG|0o600)
	le.PutUint32(a[64:], 1) // link
	le.PutUint32(a[80:], Block)
	return 104
}
