// Package wire is the conversation between the daemon and the monitor.
//
// A connection is a unix stream socket. The daemon sends a Request, with
// descriptors, and gets an Answer; only Spawn of a bound process and Watch
// have more than one. A connection that ends takes its bound process with it.
//
//	daemon                                      monitor
//	  Spawn{id, image}  + descriptors     ──▶
//	                                              clones; keeps pidfd, log, pipes
//	                                      ◀──   Answer{pid} + pidfd, terminal
//	                                      ◀──   Answer{exit}      bound only
//	  Watch                               ──▶
//	                                      ◀──   Answer{tasks}     at once
//	                                      ◀──   Answer{task}      at each end
//	  Pin{id}           + namespaces      ──▶   keeps them open
//	  Fetch{id}                           ──▶
//	                                      ◀──   Answer + descriptors
//	  Adopt{id, pid}    + descriptors     ──▶   the monitor before this one died
//	  Upgrade           + program         ──▶   executes it in its own place
//	                                      ◀──   Answer{pid}, by the new program
//
// What the monitor leaves to that program is a Handover. All connections go on.
//
// The encoding is a plain sequence of numbers and strings: no reflection, for
// the monitor is to stay small. The package opens no file.
package wire

import (
	"encoding/binary"
	"errors"
	"syscall"
	"time"

	"cri-mini/runtime/spawn"
)

// Version changes whenever a message does. Hello and Upgrade, which have
// nothing but their verb, and the beginning of the answer are the same in all
// versions: with those two a daemon gets a monitor of its own version.
const Version = 2

// Verb says what a request wants.
type Verb uint8

const (
	Hello      Verb = iota + 1
	Spawn           // run an image
	Watch           // all tasks now, then each that ends
	Pin             // keep descriptors under ID
	Fetch           // descriptors kept under ID
	Unpin           // close them
	Attach          // streams of the task ID
	CloseStdin      // of the task ID
	ReopenLog       // of the task ID: continue in the descriptor sent along
	Files           // all descriptors of the task ID
	Adopt           // a running process as task ID, from a monitor that died
	Forget          // the ended task ID
	Quit            // end the monitor; refused while a task runs
	Pins            // what is kept by Pin, as tasks that have an ID only
	Upgrade         // execute the program sent along; refused while a process is being started
)

// Request is what the daemon says.
type Request struct {
	Verb  Verb
	ID    string
	Image *spawn.Image // Spawn
	Task  TaskSpec     // Spawn and Adopt
	PID   int32        // Adopt; the descriptors start with its pidfd
	At    time.Time    // Adopt: when it was started
	Names []string     // Pin: of the descriptors, in order
}

// TaskSpec says what the monitor does with a process besides running it. The
// descriptors of a Spawn are: the image's files, then those marked here, in
// this order.
type TaskSpec struct {
	Files    uint32 // how many descriptors the image has
	Cgroup   bool   // folder: clone into it, read memory.events and kill at the end
	Record   bool   // folder in which the exit record is written
	Log      bool   // CRI log file
	Stdin    bool   // write end, for attach
	Stdout   bool   // read end
	Stderr   bool   // read end
	Terminal bool   // Spawn: socket on which the terminal arrives; Adopt: the terminal
	Rootfs   bool   // mount, held open: else the last process of the container unmounts it in its own exit

	StdinOnce bool
	// Attach adds to the answer what Attach gives of the outputs, named
	// attached-stdout and so on: nothing is missed.
	Attach bool
	// Bound ends the process with the connection, and a second answer tells
	// its exit. It is not in the list of tasks.
	Bound bool
}

// Answer is what the monitor says. Descriptors follow in Names' order.
type Answer struct {
	Version uint32
	PID     int32
	At      time.Time
	Failed  int32 // spawn.Result.Failed
	Errno   syscall.Errno
	Tasks   []Task
	Names   []string
}

// Task is a process as the monitor knows it.
type Task struct {
	ID        string
	PID       int32
	Started   time.Time
	Ended     bool
	Code      int32
	At        time.Time
	OOMKilled bool
	Unknown   bool
}

// Errors of the monitor itself, as errnos: ESRCH for an unknown task, EEXIST
// for one that is known already, EBUSY for Quit with tasks and Upgrade with a
// spawn under way, EBADMSG for a request it does not understand.

var errShort = errors.New("message ends too early")

type encoder struct{ b []byte }

func (e *encoder) num(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)  { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) flag(v bool) {
	if v {
		e.num(1)
	} else {
		e.num(0)
	}
}
func (e *encoder) bytes(v []byte) { e.num(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) text(v string)  { e.num(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) time(v time.Time) {
	if v.IsZero() {
		e.int(0)
		return
	}
	e.int(v.UnixNano())
}
func (e *encoder) texts(v []string) {
	e.num(uint64(len(v)))
	for _, s := range v {
		e.text(s)
	}
}

type decoder struct {
	b   []byte
	err error
}

func (d *decoder) num() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) fail() { d.err, d.b = errShort, nil }

func (d *decoder) flag() bool { return d.num() != 0 }

func (d *decoder) bytes() []byte {
	n := d.num()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) text() string { return string(d.bytes()) }

func (d *decoder) time() time.Time {
	n := d.int()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// count reads the length of a list whose items take a byte at least.
func (d *decoder) count() int {
	n := d.num()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) texts() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	v := make([]string, n)
	for i := range v {
		v[i] = d.text()
	}
	return v
}
