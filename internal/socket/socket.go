// Package socket makes the unix sockets on which this program is asked for
// things. Whoever may open one is root of the node, so a socket is never seen
// with more rights than 0600, and a directory made for it has 0700.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Path takes a path out of an address like unix:///run/x.sock.
func Path(address string) (string, error) {
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok || !filepath.IsAbs(path) {
		return "", fmt.Errorf("address %q: want unix:///absolute/path", address)
	}
	return filepath.Clean(path), nil
}

// Listen makes a socket at path, in the place of one that a dead process
// left. One that still answers is an error. Closing the listener removes it.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := checkFree(path); err != nil {
		return nil, err
	}
	// Made under another name and then moved, it appears complete and with
	// its final rights.
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	err = os.Chmod(temporary, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		listener.Close()
		os.Remove(temporary)
		return nil, err
	}
	return &removing{Listener: listener, path: path}, nil
}

func checkFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is in the way: not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return nil // nobody answers: its process is dead
	}
	conn.Close()
	return fmt.Errorf("%s: another process answers there", path)
}

// removing unlinks the socket at the end, unless another took its place. It may
// be closed twice: servers close their listeners themselves.
type removing struct {
	net.Listener
	path string
}

func (r *removing) Close() error {
	if err := r.Listener.Close(); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	}
	if checkFree(r.path) == nil {
		os.Remove(r.path)
	}
	return nil
}
