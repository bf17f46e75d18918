package powercut

import (
	"bytes"
	"maps"
)

// Content is what a disk has: a base, pages above it, which other contents may
// share and so stay as they are, and pages of its own.
type Content struct {
	base   []byte
	shared map[int64]*[Block]byte // by their number
	own    map[int64]*[Block]byte
}

// NewContent is that of a disk which nothing was written to. The size is a
// multiple of 4096.
func NewContent(size int) *Content { return &Content{base: make([]byte, size)} }

func (c *Content) size() int64 { return int64(len(c.base)) }

func (c *Content) page(number int64) []byte {
	for _, pages := range []map[int64]*[Block]byte{c.own, c.shared} {
		if page := pages[number]; page != nil {
			return page[:]
		}
	}
	return c.base[number*Block : (number+1)*Block]
}

func (c *Content) ownPage(number int64) []byte {
	page := c.own[number]
	if page == nil {
		page = (*[Block]byte)(bytes.Clone(c.page(number)))
		if c.own == nil {
			c.own = make(map[int64]*[Block]byte)
		}
		c.own[number] = page
	}
	return page[:]
}

// settled is the same content without pages of its own, to be copied.
func (c *Content) settled() Content {
	shared := make(map[int64]*[Block]byte, len(c.shared)+len(c.own))
	maps.Copy(shared, c.shared)
	maps.Copy(shared, c.own)
	return Content{base: c.base, shared: shared}
}

// each visits the pages of a range, as they are or, to be written to, as copies.
func (c *Content) each(offset, length int64, write bool, do func(page []byte, done int64)) {
	for done := int64(0); done < length; {
		number, within := (offset+done)/Block, (offset+done)%Block
		n := min(Block-within, length-done)
		page := c.page(number)
		if write {
			page = c.ownPage(number)
		}
		do(page[within:within+n], done)
		done += n
	}
}

func (c *Content) read(offset int64, p []byte) {
	c.each(offset, int64(len(p)), false, func(page []byte, done int64) { copy(p[done:], page) })
}

func (c *Content) write(offset int64, p []byte) {
	c.each(offset, int64(len(p)), true, func(page []byte, done int64) { copy(page, p[done:]) })
}

// flat is a copy of all of it.
func (c *Content) flat() []byte {
	all := make([]byte, len(c.base))
	c.read(0, all)
	return all
}
