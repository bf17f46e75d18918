package spawn

import (
	"encoding/binary"
	"fmt"
)

// Image is a program laid out in memory, position independent: Blob holds a
// header, the operations and what they point to.
//
//	header   failed, errno, forked, count     4 words
//	ops      nr, args[6], load, save, tolerate, onOK, onTolerated, fork
//	data     strings, structures, saved results
//
// The child and its parent both see the blob; the first three words of the
// header are how the child reports.
type Image struct {
	Flags uint64
	Copy  bool
	Blob  []byte
	// Pointers are the places in Blob that hold an offset into Blob and must
	// become addresses.
	Pointers []uint32
	// Files are the places that must become descriptor numbers.
	Files []FileSlot
}

// FileSlot is a place in an image's blob for the number of a file.
type FileSlot struct {
	Offset uint32
	Index  uint32 // of Program.Files
}

const (
	word       = 8
	headerSize = 4 * word
	forkedAt   = 2 * word
	countAt    = 3 * word
	opSize     = 13 * word // OP_SIZE in the assembly
)

// Link lays the program out.
func (p Program) Link() (*Image, error) {
	l := linker{
		image:   &Image{Flags: p.Flags, Copy: p.Copy, Blob: make([]byte, headerSize+opSize*len(p.Ops))},
		files:   map[string]uint32{},
		results: map[string]uint32{},
	}
	for i, name := range p.Files {
		l.files[name] = uint32(i)
	}
	l.word(countAt, uint64(len(p.Ops)))
	l.placeMessages(p.Ops)
	for i, op := range p.Ops {
		if err := l.op(uint32(headerSize+i*opSize), op); err != nil {
			return nil, fmt.Errorf("operation %d, %s: %w", i, op.What, err)
		}
		if i+1+max(op.SkipOK, op.SkipTolerated) > len(p.Ops) {
			return nil, fmt.Errorf("operation %d, %s: skips past the end", i, op.What)
		}
	}
	return l.image, nil
}

type linker struct {
	image   *Image
	files   map[string]uint32
	results map[string]uint32 // where the word of a saved result is
}

func (l *linker) word(at uint32, v uint64) {
	binary.NativeEndian.PutUint64(l.image.Blob[at:], v)
}

func (l *linker) pointer(at, to uint32) {
	l.word(at, uint64(to))
	l.image.Pointers = append(l.image.Pointers, at)
}

// reserve appends n zero bytes, aligned to a word.
func (l *linker) reserve(n int) uint32 {
	for len(l.image.Blob)%word != 0 {
		l.image.Blob = append(l.image.Blob, 0)
	}
	at := len(l.image.Blob)
	l.image.Blob = append(l.image.Blob, make([]byte, n)...)
	return uint32(at)
}

func (l *linker) bytes(b []byte) uint32 {
	at := l.reserve(len(b))
	copy(l.image.Blob[at:], b)
	return at
}

// placeMessages gives the results that are sent as descriptors their place:
// the word after a control message header.
func (l *linker) placeMessages(ops []Op) {
	for _, op := range ops {
		for _, a := range op.Args {
			if _, placed := l.results[a.name]; a.kind == fdMessage && !placed {
				l.results[a.name] = l.reserve(cmsgHeader+word) + cmsgHeader
			}
		}
	}
}

func (l *linker) result(name string) uint32 {
	at, ok := l.results[name]
	if !ok {
		at = l.reserve(word)
		l.results[name] = at
	}
	return at
}

func (l *linker) op(at uint32, op Op) error {
	const (
		args        = 1 * word
		load        = 7 * word
		save        = 8 * word
		tolerate    = 9 * word
		onOK        = 10 * word
		onTolerated = 11 * word
		fork        = 12 * word
	)
	l.word(at, uint64(op.Nr))
	var loads uint64
	if len(op.Args) > 6 || len(op.Tolerate) > 4 {
		return fmt.Errorf("%d arguments, %d tolerated errors: at most 6 and 4", len(op.Args), len(op.Tolerate))
	}
	for i, a := range op.Args {
		if a.kind == saved {
			if i > 4 {
				return fmt.Errorf("a saved result cannot be argument %d", i)
			}
			loads |= 1 << i
		}
		if err := l.arg(at+args+uint32(i)*word, a); err != nil {
			return err
		}
	}
	l.word(at+load, loads)
	if op.Save != "" {
		l.pointer(at+save, l.result(op.Save))
	}
	var errnos uint64
	for i, e := range op.Tolerate {
		errnos |= uint64(uint16(e)) << (16 * i)
	}
	l.word(at+tolerate, errnos)
	l.word(at+onOK, uint64(op.SkipOK))
	l.word(at+onTolerated, uint64(op.SkipTolerated))
	if op.Fork {
		l.word(at+fork, 1)
	}
	return nil
}

func (l *linker) arg(at uint32, a Arg) error {
	switch a.kind {
	case constant:
		l.word(at, a.value)
	case saved:
		if _, known := l.results[a.name]; !known {
			return fmt.Errorf("result %q is used before it is saved", a.name)
		}
		l.pointer(at, l.results[a.name])
	case file:
		index, known := l.files[a.name]
		if !known {
			return fmt.Errorf("file %q is not among the program's files", a.name)
		}
		l.image.Files = append(l.image.Files, FileSlot{Offset: at, Index: index})
	case buffer:
		l.pointer(at, l.bytes(a.data))
	case vector:
		l.pointer(at, l.vector(a.list))
	case filter:
		l.pointer(at, l.filter(a.data))
	case forkedPID:
		l.pointer(at, forkedAt)
	case fdMessage:
		l.pointer(at, l.message(l.results[a.name]-cmsgHeader))
	}
	return nil
}

func (l *linker) vector(list []string) uint32 {
	at := l.reserve((len(list) + 1) * word)
	for i, s := range list {
		l.pointer(at+uint32(i)*word, l.bytes(append([]byte(s), 0)))
	}
	return at
}

// filter makes a struct sock_fprog: a 16 bit count and a pointer.
func (l *linker) filter(insns []byte) uint32 {
	at := l.reserve(2 * word)
	binary.NativeEndian.PutUint16(l.image.Blob[at:], uint16(len(insns)/8))
	l.pointer(at+word, l.bytes(insns))
	return at
}

const cmsgHeader = 16

// message makes a struct msghdr with one byte of data and, as control, the
// descriptor whose word follows the header at control.
func (l *linker) message(control uint32) uint32 {
	const (
		solSocket = 1
		scmRights = 1
	)
	l.word(control, cmsgHeader+4)
	binary.NativeEndian.PutUint32(l.image.Blob[control+8:], solSocket)
	binary.NativeEndian.PutUint32(l.image.Blob[control+12:], scmRights)
	payload := l.bytes([]byte{0})
	vec := l.reserve(2 * word)
	l.pointer(vec, payload)
	l.word(vec+word, 1)
	at := l.reserve(7 * word) // name, namelen, iov, iovlen, control, controllen, flags
	l.pointer(at+2*word, vec)
	l.word(at+3*word, 1)
	l.pointer(at+4*word, control)
	l.word(at+5*word, cmsgHeader+word)
	return at
}
