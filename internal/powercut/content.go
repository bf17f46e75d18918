package powercut

// Content is what a disk has: a base that stays as it is, and what was written
// since.
type Content struct {
	base  []byte
	pages map[int64]*[block]byte // by their number
}

// NewContent is that of a disk which nothing was written to. The size is a
// multiple of 4096.
func NewContent(size int) *Content { return &Content{base: make([]byte, size)} }

func (c *Content) size() int64 { return int64(len(c.base)) }

// each visits the pages of a range, as they are or, to be written to, as copies.
func (c *Content) each(offset, length int64, write bool, do func(page []byte, done int64)) {
	for done := int64(0); done < length; {
		number, within := (offset+done)/block, (offset+done)%block
		n := min(block-within, length-done)
		page := c.base[number*block : (number+1)*block]
		own := c.pages[number]
		if own == nil && write {
			own = (*[block]byte)(append([]byte(nil), page...))
			if c.pages == nil {
				c.pages = make(map[int64]*[block]byte)
			}
			c.pages[number] = own
		}
		if own != nil {
			page = own[:]
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
