package executor

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// streams are the two ends of a program's input and output.
type streams struct {
	theirs files // stdin, stdout, stderr; or console, a socket for the terminal
	ours   files // the other ends of the pipes
	socket *os.File
}

// openStreams makes the ends for a container's first process.
func openStreams(s spec.Container) (*streams, error) {
	return makeStreams(s.Process.Terminal, spec.ExecIO{Stdin: s.Stdin, Stdout: true, Stderr: true})
}

func makeStreams(terminal bool, wanted spec.ExecIO) (*streams, error) {
	st := &streams{theirs: files{}, ours: files{}}
	var err error
	if terminal {
		err = st.console()
	} else {
		err = st.pipes(wanted)
	}
	if err != nil {
		st.theirs.close()
		st.ours.close()
		return nil, err
	}
	return st, nil
}

// console makes the socket through which the program's terminal comes. The
// far end stays open here until the spawn is done, as theirs.
func (st *streams) console() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make the console socket: %w", err)
	}
	st.socket = os.NewFile(uintptr(pair[0]), "console")
	st.theirs["console"] = os.NewFile(uintptr(pair[1]), "console")
	st.theirs["socket"] = st.socket
	return nil
}

func (st *streams) pipes(wanted spec.ExecIO) error {
	for _, s := range []struct {
		name   string
		wanted bool
	}{{"stdin", wanted.Stdin}, {"stdout", wanted.Stdout}, {"stderr", wanted.Stderr}} {
		if !s.wanted {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			st.theirs[s.name] = null
			continue
		}
		read, write, err := pipe(s.name)
		if err != nil {
			return err
		}
		if s.name == "stdin" {
			st.theirs[s.name], st.ours[s.name] = read, write
		} else {
			st.theirs[s.name], st.ours[s.name] = write, read
		}
	}
	return nil
}

// resize sets the size of a terminal.
func resize(terminal *os.File, width, height uint16) error {
	if terminal == nil {
		return fmt.Errorf("resize: no terminal")
	}
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	})
	if err == nil {
		err = failed
	}
	return err
}

// terminalReader ends like a file: when the last process has closed the other
// side, the kernel says EIO.
type terminalReader struct{ *os.File }

func (t terminalReader) Read(b []byte) (int, error) {
	n, err := t.File.Read(b)
	if pe, ok := err.(*os.PathError); ok && pe.Err == syscall.EIO {
		return 0, io.EOF
	}
	return n, err
}
