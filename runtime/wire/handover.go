package wire

import (
	"errors"
	"syscall"
	"time"
)

// HandoverVersion changes whenever a Handover's form does. The head is the same
// in all versions: version, listening socket and the list of all descriptors.
const HandoverVersion = 1

// ErrHandover is a handover whose content cannot be read; its head can.
var ErrHandover = errors.New("handover of another version")

// Handover is all that a monitor has, for the program that it executes in its
// own place. Descriptors are numbers, which stay the same; -1 is none.
type Handover struct {
	Listener int
	Conns    []HeldConn
	Tasks    []HeldTask
	Pins     []HeldPin

	Files []int // all descriptors that are named in any of these
}

// HeldConn is a connection of the daemon, between two requests.
type HeldConn struct {
	File    int
	Watches bool
	Asked   bool // for the new program: it awaits the answer
}

// HeldTask is a process with its descriptors, as in TaskSpec.
type HeldTask struct {
	Task
	Spec TaskSpec

	Pidfd, Cgroup, Record, Log, Stdin, Terminal, Rootfs int

	Streams    []HeldStream
	BoundTo    int // connection
	Adopted    bool
	EndSeen    bool // adopted, and its exit code is awaited
	Unrecorded bool
	Lost       int // log records since the last good write
	LostFor    syscall.Errno
}

// HeldStream is an output of a task.
type HeldStream struct {
	Name  string
	File  int
	Line  []byte // the beginning of a line
	Held  bool   // not read, for a sink is full
	Sinks []HeldSink
}

// HeldSink is the near end of an attached client's pipe.
type HeldSink struct {
	File    int
	Pending []byte
}

// HeldPin is a set of named descriptors.
type HeldPin struct {
	ID    string
	Names []string
	Files []int
}

// Encode lays a handover out, and learns Files.
func (h *Handover) Encode() []byte {
	var head, body encoder
	v := &visitor{to: &body}
	h.visit(v)
	h.Files = v.files
	head.num(HandoverVersion)
	head.int(int64(h.Listener))
	head.num(uint64(len(h.Files)))
	for _, fd := range h.Files {
		head.int(int64(fd))
	}
	return append(head.b, body.b...)
}

// DecodeHandover is the opposite of Encode. With an error it still gives the
// head, or nil when not even that can be read.
func DecodeHandover(data []byte) (*Handover, error) {
	d := decoder{b: data}
	version := d.num()
	h := &Handover{Listener: int(d.int())}
	for range d.count() {
		h.Files = append(h.Files, int(d.int()))
	}
	if d.err != nil {
		return nil, d.err
	}
	if version != HandoverVersion {
		return h, ErrHandover
	}
	whole := &Handover{Listener: h.Listener, Files: h.Files}
	whole.visit(&visitor{from: &d})
	if d.err == nil && len(d.b) > 0 {
		d.err = errors.New("message is too long")
	}
	if d.err != nil {
		return h, d.err
	}
	return whole, nil
}

// visit goes through everything but the head, in order.
func (h *Handover) visit(v *visitor) {
	each(v, &h.Conns, func(c *HeldConn) {
		v.file(&c.File)
		v.flag(&c.Watches)
		v.flag(&c.Asked)
	})
	each(v, &h.Tasks, func(t *HeldTask) { t.visit(v) })
	each(v, &h.Pins, func(p *HeldPin) {
		v.text(&p.ID)
		each(v, &p.Names, v.text)
		each(v, &p.Files, v.file)
	})
}

func (t *HeldTask) visit(v *visitor) {
	v.text(&t.ID)
	visitInt(v, &t.PID)
	visitInt(v, &t.Code)
	v.time(&t.Started)
	v.time(&t.At)
	for _, flag := range append(t.Spec.flags(), &t.Ended, &t.OOMKilled, &t.Unknown, &t.Adopted, &t.EndSeen, &t.Unrecorded) {
		v.flag(flag)
	}
	visitInt(v, &t.Spec.Files)
	for _, fd := range []*int{&t.Pidfd, &t.Cgroup, &t.Record, &t.Log, &t.Stdin, &t.Terminal, &t.Rootfs} {
		v.file(fd)
	}
	each(v, &t.Streams, func(s *HeldStream) {
		v.text(&s.Name)
		v.file(&s.File)
		v.bytes(&s.Line)
		v.flag(&s.Held)
		each(v, &s.Sinks, func(k *HeldSink) {
			v.file(&k.File)
			v.bytes(&k.Pending)
		})
	})
	visitInt(v, &t.BoundTo)
	visitInt(v, &t.Lost)
	visitInt(v, &t.LostFor)
}

// visitor writes what it visits, or reads it: one order for both.
type visitor struct {
	to    *encoder
	from  *decoder
	files []int // descriptors that were written
}

func visitInt[T ~int | ~int32 | ~uint32 | ~uintptr](v *visitor, n *T) {
	if v.from != nil {
		*n = T(v.from.int())
		return
	}
	v.to.int(int64(*n))
}

func (v *visitor) file(fd *int) {
	visitInt(v, fd)
	if *fd >= 0 {
		v.files = append(v.files, *fd)
	}
}

func (v *visitor) flag(f *bool) {
	if v.from != nil {
		*f = v.from.flag()
		return
	}
	v.to.flag(*f)
}

func (v *visitor) bytes(b *[]byte) {
	if v.from != nil {
		*b = append([]byte(nil), v.from.bytes()...)
		return
	}
	v.to.bytes(*b)
}

func (v *visitor) text(s *string) {
	if v.from != nil {
		*s = v.from.text()
		return
	}
	v.to.text(*s)
}

func (v *visitor) time(t *time.Time) {
	if v.from != nil {
		*t = v.from.time()
		return
	}
	v.to.time(*t)
}

func each[T any](v *visitor, list *[]T, visit func(*T)) {
	if v.from != nil {
		*list = make([]T, v.from.count())
	} else {
		v.to.num(uint64(len(*list)))
	}
	for i := range *list {
		visit(&(*list)[i])
	}
}
