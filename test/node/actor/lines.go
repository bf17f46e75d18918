package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lines writes numbered lines, each with one write as a program does that
// flushes, in bursts with a pause in between.
func lines(args []string) error {
	set := flag.NewFlagSet("lines", flag.ExitOnError)
	count := set.Int("n", 0, "how many; 0: until killed")
	burst := set.Int("burst", 20, "lines between two pauses")
	pause := set.Duration("pause", time.Millisecond, "pause after a burst")
	both := set.Bool("stderr", false, "the same on stderr, in turns")
	code := set.Int("exit", 0, "exit code")
	port := set.Int("listen", 0, "answer HTTP on this port meanwhile")
	if err := set.Parse(args); err != nil {
		return err
	}
	if *port != 0 {
		if err := listen(*port); err != nil {
			return err
		}
	}
	for i := 1; *count == 0 || i <= *count; i++ {
		line := fmt.Appendf(nil, "line %09d of the container's output, long enough to be torn\n", i)
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
		if *both {
			if _, err := os.Stderr.Write(line); err != nil {
				return err
			}
		}
		if i%*burst == 0 {
			time.Sleep(*pause)
		}
	}
	os.Exit(*code)
	return nil
}

func flood([]string) error {
	block := make([]byte, 64<<10)
	for {
		if _, err := os.Stdout.Write(block); err != nil {
			return err
		}
	}
}

// listen answers each connection the same, after what it asks. Its own few calls
// take less memory than a server's package, in as many containers as there are.
func listen(port int) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(socket, 128); err != nil {
		return err
	}
	go func() {
		asked := make([]byte, 4096)
		for {
			conn, _, err := unix.Accept(socket)
			if err != nil {
				continue
			}
			if n, err := unix.Read(conn, asked); err == nil && n > 0 {
				unix.Write(conn, []byte("HTTP/1.0 200 OK\r\n\r\nwell\n"))
			}
			unix.Close(conn)
		}
	}()
	return nil
}
