package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors prints where the descriptors of all processes that can be seen
// lead: of this one, which just came from outside, and of PID 1.
func descriptors([]string) error {
	all, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return err
	}
	for _, name := range all {
		if target, err := os.Readlink(name); err == nil {
			fmt.Println(name, target)
		}
	}
	return nil
}

// overwrite tries, for as long as told, to open the program of every process
// whose name has the pattern for writing. It also keeps descriptors of those
// programs, to try again through them once the process has gone: then the file
// is no longer busy.
func overwrite(args []string) error {
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	seen, kept := 0, map[string]*os.File{}
	defer func() {
		for _, f := range kept {
			f.Close()
		}
	}()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		programs, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			return err
		}
		for _, name := range programs {
			comm, err := os.ReadFile(filepath.Dir(name) + "/comm")
			if err != nil || !strings.Contains(string(comm), args[0]) {
				continue
			}
			seen++
			if err := scribble(name); err == nil {
				return fmt.Errorf("overwrote %s of %s", name, bytes.TrimSpace(comm))
			}
			if f, err := os.OpenFile(name, unix.O_PATH, 0); err == nil {
				var st unix.Stat_t
				if unix.Fstat(int(f.Fd()), &st) != nil || kept[fmt.Sprint(st.Dev, st.Ino)] != nil {
					f.Close()
					continue
				}
				kept[fmt.Sprint(st.Dev, st.Ino)] = f
			}
		}
		for key, f := range kept {
			if err := scribble(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err == nil {
				return fmt.Errorf("overwrote %s through a descriptor that was kept", key)
			}
		}
	}
	fmt.Printf("seen %d times\n", seen)
	return nil
}

func scribble(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("#!/bin/false"), 0)
	return errors.Join(err, f.Close())
}

// swap exchanges two names as fast as it can.
func swap(args []string) error {
	limit, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		for range 1000 {
			if err := unix.Renameat2(unix.AT_FDCWD, args[0], unix.AT_FDCWD, args[1], unix.RENAME_EXCHANGE); err != nil {
				return fmt.Errorf("exchange: %w", err)
			}
		}
	}
	return nil
}

// sockets connects to every abstract socket of its network namespace and says
// which let it in.
func sockets([]string) error {
	table, err := os.Open("/proc/net/unix")
	if err != nil {
		return err
	}
	defer table.Close()
	for rows := bufio.NewScanner(table); rows.Scan(); {
		fields := strings.Fields(rows.Text())
		name := fields[len(fields)-1]
		if !strings.HasPrefix(name, "@") {
			continue
		}
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
			fd, err := unix.Socket(unix.AF_UNIX, kind, 0)
			if err != nil {
				return err
			}
			if unix.Connect(fd, &unix.SockaddrUnix{Name: name}) == nil {
				fmt.Println("connected to", name)
			}
			unix.Close(fd)
		}
	}
	return nil
}
