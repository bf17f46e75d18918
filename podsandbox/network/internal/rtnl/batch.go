package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Batch is a list of netlink messages under construction. The zero value is
// ready. It may be sent once.
type Batch struct {
	buf    []byte
	starts []int
	what   []string
}

// Begin starts a message. header is the fixed part that follows the netlink
// header; what names the message in errors.
func (b *Batch) Begin(kind, flags uint16, header []byte, what string) {
	b.end()
	if b.buf == nil {
		b.buf = make([]byte, 0, 1024)
	}
	b.starts = append(b.starts, len(b.buf))
	b.what = append(b.what, what)
	b.buf = append(b.buf, make([]byte, unix.NLMSG_HDRLEN)...)
	at := b.buf[len(b.buf)-unix.NLMSG_HDRLEN:]
	binary.NativeEndian.PutUint16(at[4:], kind)
	binary.NativeEndian.PutUint16(at[6:], flags|unix.NLM_F_REQUEST)
	b.buf = append(b.buf, header...)
	b.pad()
}

// end writes the length of the message begun last.
func (b *Batch) end() {
	if len(b.starts) == 0 {
		return
	}
	at := b.starts[len(b.starts)-1]
	binary.NativeEndian.PutUint32(b.buf[at:], uint32(len(b.buf)-at))
}

// Attr appends an attribute to the message begun last.
func (b *Batch) Attr(kind uint16, data []byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(unix.SizeofRtAttr+len(data)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = append(b.buf, data...)
	b.pad()
}

// Text appends a zero-terminated string.
func (b *Batch) Text(kind uint16, s string) { b.Attr(kind, append([]byte(s), 0)) }

// Uint32 appends a number in the machine's byte order.
func (b *Batch) Uint32(kind uint16, v uint32) {
	b.Attr(kind, binary.NativeEndian.AppendUint32(nil, v))
}

// Nest appends an attribute whose content is what fill appends after header.
func (b *Batch) Nest(kind uint16, header []byte, fill func()) {
	at := len(b.buf)
	b.Attr(kind, header)
	fill()
	binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

func (b *Batch) pad() {
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

// Attributes calls fn for each attribute in data, without the flag bits of its
// kind.
func Attributes(data []byte, fn func(kind uint16, value []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return
		}
		fn(binary.NativeEndian.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[unix.SizeofRtAttr:size])
		data = data[min(align(size), len(data)):]
	}
}
