package wire

import (
	"syscall"

	"cri-mini/runtime/spawn"
)

// Encode lays a request out.
func (r *Request) Encode() []byte {
	var e encoder
	e.num(uint64(r.Verb))
	e.text(r.ID)
	e.texts(r.Names)
	e.int(int64(r.PID))
	e.time(r.At)
	e.task(r.Task)
	e.flag(r.Image != nil)
	if r.Image != nil {
		e.image(r.Image)
	}
	return e.b
}

// DecodeRequest is the opposite of Encode. The image's blob stays in data.
func DecodeRequest(data []byte) (*Request, error) {
	d := decoder{b: data}
	r := &Request{Verb: Verb(d.num())}
	if r.Verb == Hello || r.Verb == Upgrade {
		return r, d.err // what follows may be of another version
	}
	r.ID, r.Names, r.PID, r.At, r.Task = d.text(), d.texts(), int32(d.int()), d.time(), d.task()
	if d.flag() {
		r.Image = d.image()
	}
	return r, d.err
}

func (e *encoder) image(im *spawn.Image) {
	e.num(im.Flags)
	e.flag(im.Copy)
	e.bytes(im.Blob)
	e.num(uint64(len(im.Pointers)))
	for _, at := range im.Pointers {
		e.num(uint64(at))
	}
	e.num(uint64(len(im.Files)))
	for _, f := range im.Files {
		e.num(uint64(f.Offset))
		e.num(uint64(f.Index))
	}
}

func (d *decoder) image() *spawn.Image {
	im := &spawn.Image{Flags: d.num(), Copy: d.flag(), Blob: d.bytes()}
	im.Pointers = make([]uint32, d.count())
	for i := range im.Pointers {
		im.Pointers[i] = uint32(d.num())
	}
	im.Files = make([]spawn.FileSlot, d.count())
	for i := range im.Files {
		im.Files[i] = spawn.FileSlot{Offset: uint32(d.num()), Index: uint32(d.num())}
	}
	return im
}

// flags are a task's switches in the order of its descriptors, then the rest.
func (t *TaskSpec) flags() []*bool {
	return []*bool{&t.Cgroup, &t.Record, &t.Log, &t.Stdin, &t.Stdout, &t.Stderr, &t.Terminal, &t.Rootfs, &t.StdinOnce, &t.Attach, &t.Bound}
}

func (e *encoder) task(t TaskSpec) {
	e.num(uint64(t.Files))
	for _, f := range t.flags() {
		e.flag(*f)
	}
}

func (d *decoder) task() TaskSpec {
	t := TaskSpec{Files: uint32(d.num())}
	for _, f := range t.flags() {
		*f = d.flag()
	}
	return t
}

// Encode lays an answer out.
func (a *Answer) Encode() []byte {
	var e encoder
	e.num(uint64(a.Version))
	e.int(int64(a.PID))
	e.time(a.At)
	e.int(int64(a.Failed))
	e.num(uint64(a.Errno))
	e.texts(a.Names)
	e.num(uint64(len(a.Tasks)))
	for _, t := range a.Tasks {
		e.text(t.ID)
		e.int(int64(t.PID))
		e.time(t.Started)
		e.flag(t.Ended)
		e.int(int64(t.Code))
		e.time(t.At)
		e.flag(t.OOMKilled)
		e.flag(t.Unknown)
	}
	return e.b
}

// DecodeAnswer is the opposite of Encode.
func DecodeAnswer(data []byte) (*Answer, error) {
	d := decoder{b: data}
	a := &Answer{Version: uint32(d.num()), PID: int32(d.int())}
	if a.Version != 0 && a.Version != Version {
		a.Failed = -1 // only a greeting has a version
		return a, d.err
	}
	a.At, a.Failed, a.Errno, a.Names = d.time(), int32(d.int()), syscall.Errno(d.num()), d.texts()
	for range d.count() {
		a.Tasks = append(a.Tasks, Task{ID: d.text(), PID: int32(d.int()), Started: d.time(), Ended: d.flag(),
			Code: int32(d.int()), At: d.time(), OOMKilled: d.flag(), Unknown: d.flag()})
	}
	return a, d.err
}
