package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// counters is the table of a pod's network interfaces, opened once: reading it
// again is one system call and waits for nobody, while a question by netlink
// would wait for each change to any network of the node.
type counters struct {
	mu     sync.Mutex // guards what follows
	file   *os.File
	closed bool
}

func (c *counters) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// What a pod can have at most in an answer. A program with CAP_NET_ADMIN makes
// as many interfaces as it likes.
const (
	maxInterfaces = 64
	maxTable      = 32 << 10
)

// Interfaces tells what went through the network interfaces of a sandbox, the
// loopback left out. It is nothing for one in the node's network: what goes
// through there is not the pod's.
func (e *Executor) Interfaces(ctx context.Context, id string) ([]spec.Interface, error) {
	s, err := e.sandbox(ctx, id)
	if err != nil {
		return nil, err
	}
	net := s.files["net"]
	if net == nil {
		return nil, nil
	}
	text, err := s.counters.read(net)
	if err != nil {
		return nil, fmt.Errorf("network interfaces of sandbox %s: %w", id, err)
	}
	return parseInterfaces(text), nil
}

func (c *counters) read(net *os.File) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return "", ErrUnknown // removed meanwhile
	}
	if c.file == nil {
		file, err := openIn(net, "/proc/thread-self/net/dev")
		if err != nil {
			return "", err
		}
		c.file = file
	}
	var text strings.Builder
	var buffer [4096]byte // what the kernel gives at once
	for text.Len() < maxTable {
		n, err := c.file.ReadAt(buffer[:], int64(text.Len()))
		text.Write(buffer[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
	}
	return text.String(), nil
}

// openIn opens a file of procfs as it is in a network namespace.
func openIn(net *os.File, name string) (file *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with us
		if err = unix.Setns(number(net), unix.CLONE_NEWNET); err == nil {
			file, err = os.Open(name)
		}
	}()
	<-done
	return file, err
}

// parseInterfaces reads /proc/net/dev.
func parseInterfaces(text string) []spec.Interface {
	list := []spec.Interface{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimLeft(name, " ")
		if !ok || !strings.HasSuffix(line, "\n") || name == "lo" {
			continue // a heading; or the table is cut off
		}
		numbers, err := sixteen(rest)
		if err != nil {
			continue
		}
		list = append(list, spec.Interface{
			Name:    printable(name),
			RxBytes: numbers[0], RxPackets: numbers[1], RxErrors: numbers[2], RxDropped: numbers[3],
			TxBytes: numbers[8], TxPackets: numbers[9], TxErrors: numbers[10], TxDropped: numbers[11],
		})
		if len(list) == maxInterfaces {
			break
		}
	}
	return list
}

// printable makes text of a name that the pod gave: any bytes but spaces,
// slashes and colons. An answer with other than text could not be sent, and
// one with the same name twice spoils all metrics of the node, so no two names
// become the same.
func printable(name string) string {
	if utf8.ValidString(name) && !strings.Contains(name, `\`) {
		return name
	}
	var b strings.Builder
	for _, c := range []byte(name) {
		if c < utf8.RuneSelf && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

func sixteen(text string) (numbers [16]uint64, err error) {
	words := strings.Fields(text)
	if len(words) != len(numbers) {
		return numbers, errors.New("not a line of the table")
	}
	for i, word := range words {
		if numbers[i], err = strconv.ParseUint(word, 10, 64); err != nil {
			return numbers, err
		}
	}
	return numbers, nil
}
