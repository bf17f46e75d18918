package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// writeInitial writes the file system that the kernel starts from: the guest's
// first program and the modules for its disks.
func writeInitial(w io.Writer, guest, modules string) error {
	c := &cpio{w: w}
	for _, dir := range []string{"dev", "modules"} {
		c.add(dir, 0o040755, nil)
	}
	// The kernel opens it for the first program, before anything is mounted.
	c.addDevice("dev/console", 0o020600, 5, 1)
	program, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	c.add("init", 0o100755, program)
	found, err := filepath.Glob(modules + "/*.ko")
	if err != nil {
		return err
	}
	for _, file := range found {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		c.add("modules/"+filepath.Base(file), 0o100644, text)
	}
	c.add("TRAILER!!!", 0, nil)
	return c.err
}

// cpio writes the format that the kernel calls newc.
type cpio struct {
	w     io.Writer
	inode int
	size  int
	err   error // the first
}

func (c *cpio) add(name string, mode uint32, body []byte) { c.entry(name, mode, body, 0, 0) }

func (c *cpio) addDevice(name string, mode, major, minor uint32) {
	c.entry(name, mode, nil, major, minor)
}

// entry writes a header of thirteen numbers, the name with its zero, and the
// body, the latter two filled up to a multiple of four.
func (c *cpio) entry(name string, mode uint32, body []byte, major, minor uint32) {
	c.inode++
	c.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, 0, 0, 1, 0, len(body), 0, 0, major, minor, len(name)+1, 0))
	c.write(append([]byte(name), 0))
	c.fill()
	c.write(body)
	c.fill()
}

func (c *cpio) write(b []byte) {
	if c.err == nil {
		var n int
		n, c.err = c.w.Write(b)
		c.size += n
	}
}

func (c *cpio) fill() { c.write(make([]byte, -c.size&3)) }
