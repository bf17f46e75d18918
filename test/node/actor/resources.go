package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// burn uses one processor for good.
func burn([]string) error {
	for burned := 0; ; burned++ {
		if burned < 0 {
			return nil
		}
	}
}

// eat takes memory, a MiB at a time, says so at the end, and keeps it for as
// long as told.
func eat(args []string) error {
	size, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	hold, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(-1, 0, size<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for at := 0; at < len(memory); at += 4096 {
		memory[at] = 1
	}
	fmt.Println("full")
	time.Sleep(hold)
	return unix.Munmap(memory)
}

// bomb starts processes until it may not, and says how many it got.
func bomb(args []string) error {
	most, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for n := range most {
		_, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
		if errors.Is(err, unix.EAGAIN) {
			fmt.Println("stopped after", n)
			return nil
		}
		if err != nil {
			return err
		}
	}
	fmt.Println("started all", most)
	return nil
}

// huge takes one huge page of 2 MiB after the other until it gets no more, and
// says how many it got.
func huge(args []string) error {
	most, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for n := range most {
		page, err := unix.Mmap(-1, 0, 2<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
		if errors.Is(err, unix.ENOMEM) {
			fmt.Println("stopped after", n)
			return nil
		}
		if err != nil {
			return err
		}
		page[0] = 1
	}
	fmt.Println("got all", most)
	return nil
}

// write writes past the page cache, a MiB at a time.
func write(args []string) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|unix.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// Its address and size are those of pages, as the disk wants them.
	block, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for range size {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	fmt.Println("written")
	return unix.Munmap(block)
}

// device makes a node for the kernel's messages and opens it for reading and
// for writing, which says what the cgroup's filter lets through.
func device([]string) error {
	const path = "/tmp/kmsg"
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY} {
		f, err := os.OpenFile(path, flags, 0)
		if err == nil {
			f.Close()
		}
		fmt.Println(flags, errors.Unwrap(err))
	}
	return os.Remove(path)
}
