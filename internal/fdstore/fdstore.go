// Package fdstore has the service manager keep descriptors for us, so that they
// outlive all our processes (systemd: FDSTORE=1 of sd_notify(3)).
//
// A Bundle is descriptors under names, together under one name. The Store is the
// manager's. A bundle is one descriptor there: a socket that nobody reads, with a
// message that has the others. So the manager's list stays short, and what it
// passes to the next of us in one variable of the environment stays below the
// kernel's limit for that. The package does not know what it keeps.
package fdstore

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bundle is descriptors by name.
type Bundle map[string]*os.File

// Close closes them.
func (b Bundle) Close() {
	for _, f := range b {
		f.Close()
	}
}

// Store keeps bundles. It never makes a caller wait: what is to be said waits in
// a queue. A nil Store keeps nothing.
type Store struct {
	socket string // of the manager
	log    *slog.Logger

	mu      sync.Mutex // guards what follows
	changed sync.Cond
	queue   []word
	closed  bool
	done    chan struct{}
}

// word is what is said to the manager, with a descriptor or none.
type word struct {
	text string
	file int
}

// firstFile is the number of the first descriptor that we are started with.
const firstFile = 3

// FromEnvironment gives the store, nil where there is none, and what earlier
// processes have put there. It is called once, at the start; processes that we
// start see nothing of it.
func FromEnvironment(log *slog.Logger) (*Store, map[string]Bundle) {
	kept := inherited(os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), log)
	socket, most := os.Getenv("NOTIFY_SOCKET"), os.Getenv("FDSTORE")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE"} {
		os.Unsetenv(name)
	}
	if n, err := strconv.Atoi(most); socket == "" || err != nil || n <= 0 {
		return nil, kept
	}
	s := &Store{socket: socket, log: log, done: make(chan struct{})}
	s.changed.L = &s.mu
	go s.speak()
	return s, kept
}

func inherited(pid, count string, log *slog.Logger) map[string]Bundle {
	n, err := strconv.Atoi(count)
	if pid != strconv.Itoa(os.Getpid()) || err != nil {
		return nil // not for us
	}
	kept := map[string]Bundle{}
	for fd := firstFile; fd < firstFile+n; fd++ {
		name, b, err := peek(fd)
		if errors.Is(err, unix.EBADF) {
			log.Warn("the service manager gives fewer descriptors than it says", "said", n, "given", fd-firstFile)
			break // those behind may be the runtime's own
		}
		unix.Close(fd) // the manager has it still
		if err != nil {
			log.Warn("ignoring what the service manager gives", "err", err)
			continue
		}
		kept[name].Close()
		kept[name] = b
	}
	return kept
}

// mostFiles is more than any bundle has.
const mostFiles = 32

// peek reads a bundle and leaves it where it is.
func peek(fd int) (name string, b Bundle, err error) {
	text, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*mostFiles))
	n, used, flags, _, err := unix.Recvmsg(fd, text, control, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return "", nil, fmt.Errorf("descriptor %d is no bundle: %w", fd, err)
	}
	var files []int
	messages, err := unix.ParseSocketControlMessage(control[:used])
	for i := range messages {
		rights, bad := unix.ParseUnixRights(&messages[i])
		if bad != nil {
			err = bad
		}
		files = append(files, rights...)
	}
	names := strings.Split(string(text[:n]), "\x00")
	if err == nil && (len(names) != len(files)+1 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0) {
		err = fmt.Errorf("bundle %q has %d descriptors", names, len(files))
	}
	if err != nil {
		for _, fd := range files {
			unix.Close(fd)
		}
		return "", nil, err
	}
	b = Bundle{}
	for i, fd := range files {
		b[names[i+1]] = os.NewFile(uintptr(fd), names[i+1])
	}
	return names[0], b, nil
}

// pack puts a bundle into a socket; the descriptors are copied.
func pack(name string, b Bundle) (int, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ends[1])
	names, files := []string{name}, []int{}
	for _, part := range slices.Sorted(maps.Keys(b)) {
		raw, err := b[part].SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { files = append(files, int(fd)) })
		}
		if err != nil {
			unix.Close(ends[0])
			return -1, err
		}
		names = append(names, part)
	}
	if err := unix.Sendmsg(ends[1], []byte(strings.Join(names, "\x00")), unix.UnixRights(files...), nil, unix.MSG_NOSIGNAL); err != nil {
		unix.Close(ends[0])
		return -1, err
	}
	return ends[0], nil
}

// label is a bundle's name at the manager: a short one, without a colon.
func label(name string) string {
	h := fnv.New64a()
	h.Write([]byte(name))
	return strconv.FormatUint(h.Sum64(), 36)
}

// Keep puts a bundle into the store, where none of that name may be yet.
func (s *Store) Keep(name string, b Bundle) {
	if s == nil {
		return
	}
	file, err := pack(name, b)
	if err != nil {
		s.log.Warn("descriptors are not stored with the service manager", "bundle", name, "err", err)
		return
	}
	s.say(word{"FDSTORE=1\nFDPOLL=0\nFDNAME=" + label(name), file})
}

// Drop takes a bundle out of the store. One that is not there is fine.
func (s *Store) Drop(name string) {
	if s != nil {
		s.say(word{"FDSTOREREMOVE=1\nFDNAME=" + label(name), -1})
	}
}

func (s *Store) say(w word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		unix.Close(w.file)
		return
	}
	s.queue = append(s.queue, w)
	s.changed.Signal()
}

// Close says what is left to be said. To a manager that does not listen the rest
// is not said.
func (s *Store) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	s.closed = true
	s.changed.Signal()
	s.mu.Unlock()
	<-s.done
	return nil
}

// patience is how long the manager may leave its queue full; less in a test.
var patience = 10 * time.Second

// speak tells the manager, in order. While it is busy we wait, and nobody else.
func (s *Store) speak() {
	defer close(s.done)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.log.Warn("no descriptors are stored with the service manager", "err", err)
		socket = -1
	}
	defer unix.Close(socket)
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.closed {
			s.changed.Wait()
		}
		words := s.queue
		s.queue = nil
		s.mu.Unlock()
		if len(words) == 0 {
			return
		}
		for i, w := range words {
			err := s.send(socket, w)
			if err != nil {
				s.log.Warn("the service manager does not hear what it is to store", "err", err)
			}
			if errors.Is(err, unix.EAGAIN) && s.ends() {
				for _, w := range words[i+1:] {
					unix.Close(w.file)
				}
				return
			}
		}
	}
}

func (s *Store) ends() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Store) send(socket int, w word) error {
	var rights []byte
	if w.file >= 0 {
		rights = unix.UnixRights(w.file)
		defer unix.Close(w.file)
	}
	for {
		err := unix.Sendmsg(socket, []byte(w.text), rights, &unix.SockaddrUnix{Name: s.socket}, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}
