package monitor

import (
	"bytes"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine is the longest content of one record; a longer line is cut into
// partial ones.
const maxLine = 16 << 10

// log writes a container's output in the format of the CRI:
//
//	2026-11-24T08:30:00.123456789Z stdout F a whole line
//	2026-11-24T08:30:00.123456789Z stderr P a piece of one
//
// It never waits: what cannot be written is counted and the gap is marked, so
// that a full disk does not stop the application.
type log struct {
	fd      int
	out     []byte
	lost    int   // records since the last good write
	lostFor error // why
}

func newLog(fd int) *log { return &log{fd: fd} }

// records appends what b holds of whole lines; it returns the rest. At the
// end of a stream the rest is written too, as a piece.
func (l *log) records(stream string, b []byte, end bool) (rest []byte) {
	stamp := make([]byte, 0, 48)
	stamp = time.Now().UTC().AppendFormat(stamp, time.RFC3339Nano)
	stamp = append(append(append(stamp, ' '), stream...), ' ')
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\n')
		switch {
		case n >= 0 && n <= maxLine:
			l.record(stamp, 'F', b[:n])
			b = b[n+1:]
		case n > maxLine || len(b) > maxLine:
			l.record(stamp, 'P', b[:maxLine])
			b = b[maxLine:]
		case end:
			l.record(stamp, 'P', b)
			return nil
		default:
			return b
		}
	}
	return nil
}

func (l *log) record(stamp []byte, tag byte, content []byte) {
	l.out = append(l.out, stamp...)
	l.out = append(l.out, tag, ' ')
	l.out = append(l.out, content...)
	l.out = append(l.out, '\n')
}

// flush writes the gathered records in one go, so that a reader or a rotation
// sees none in part.
func (l *log) flush() {
	if len(l.out) == 0 {
		return
	}
	out := l.out
	l.out = l.out[:0]
	if l.fd < 0 {
		return
	}
	if l.lost > 0 {
		gap := time.Now().UTC().Format(time.RFC3339Nano) + " stderr F cri-mini: " + strconv.Itoa(l.lost) +
			" log lines lost: " + l.lostFor.Error() + "\n"
		if l.write([]byte(gap)) != nil {
			l.lost += bytes.Count(out, []byte("\n"))
			return
		}
		l.lost = 0
	}
	if err := l.write(out); err != nil {
		l.lost, l.lostFor = l.lost+bytes.Count(out, []byte("\n")), err
	}
	if cap(l.out) > 256<<10 {
		l.out = nil
	}
}

// write is all or nothing: of a part the file is cut free again.
func (l *log) write(b []byte) error {
	written := 0
	for written < len(b) {
		n, err := unix.Write(l.fd, b[written:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			if written > 0 {
				if size, e := unix.Seek(l.fd, 0, unix.SEEK_END); e == nil {
					unix.Ftruncate(l.fd, size-int64(written))
				}
			}
			return err
		}
		written += n
	}
	return nil
}

// mend cuts off the beginning of a record, which is what a monitor that was
// killed while it wrote has left. The next record would continue it.
func (l *log) mend() {
	size, err := unix.Seek(l.fd, 0, unix.SEEK_END)
	if err != nil {
		return
	}
	tail := make([]byte, min(size, 2*maxLine)) // a record is shorter
	n, err := unix.Pread(l.fd, tail, size-int64(len(tail)))
	if err != nil {
		return
	}
	end := bytes.LastIndexByte(tail[:n], '\n') + 1
	if end < n && (end > 0 || n == int(size)) {
		unix.Ftruncate(l.fd, size-int64(n-end))
	}
}

// reopen goes on in another file.
func (l *log) reopen(fd int) {
	l.close()
	l.fd = fd
}

func (l *log) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

func (m *Monitor) reopenLog(id string, files []int) error {
	t := m.tasks[id]
	if t == nil || len(files) != 1 || t.log.fd < 0 {
		for _, fd := range files {
			unix.Close(fd)
		}
		return unix.ESRCH
	}
	t.log.reopen(files[0])
	return nil
}
