package stream

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxCertificate = 1 << 20
	// renewalPatience is how long a handshake waits for a look at the files:
	// they may be on a file server that does not answer.
	renewalPatience = 200 * time.Millisecond
)

// certificate is a pair of files that somebody renews while we run.
type certificate struct {
	file, key string
	loaded    atomic.Pointer[tls.Certificate]

	mu    sync.Mutex    // never held while a file is read
	look  chan struct{} // closed at the end of the one that is under way, or nil
	begun time.Time

	stamps [2]stamp // of the one who looks
}

// stamp tells one content of a file from the next. A renewal may be a rename
// or a link that points elsewhere, so the time alone is not enough.
type stamp struct {
	time  time.Time
	size  int64
	inode uint64
}

func newCertificate(file, key string) (*certificate, error) {
	c := &certificate{file: file, key: key}
	if _, err := c.renew(); err != nil {
		return nil, err
	}
	return c, nil
}

// renew loads the pair if the files are others than before.
func (c *certificate) renew() (bool, error) {
	var stamps [2]stamp
	for i, name := range []string{c.file, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return false, fmt.Errorf("stream certificate: %w", err)
		}
		stamps[i] = stampOf(info)
	}
	if stamps == c.stamps {
		return false, nil
	}
	var text [2][]byte
	for i, name := range []string{c.file, c.key} {
		var err error
		if text[i], stamps[i], err = readBounded(name); err != nil {
			return false, fmt.Errorf("stream certificate %s: %w", name, err)
		}
	}
	pair, err := tls.X509KeyPair(text[0], text[1])
	if err != nil {
		return false, fmt.Errorf("stream certificate %s with key %s: %w", c.file, c.key, err)
	}
	c.loaded.Store(&pair)
	c.stamps = stamps
	return true, nil
}

// readBounded reads a regular file. Opening a FIFO would wait for a writer.
func readBounded(name string) ([]byte, stamp, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, stamp{}, fmt.Errorf("%v: want a regular file", info.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCertificate+1))
	if err == nil && len(data) > maxCertificate {
		err = fmt.Errorf("more than %d bytes", maxCertificate)
	}
	return data, stampOf(info), err
}

// get is asked at each handshake. While the files are being replaced they may
// not fit each other, be absent or not answer: the pair that worked goes on
// serving.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	if c.look == nil {
		c.look, c.begun = make(chan struct{}), time.Now()
		look := c.look
		begin(context.Background(), "renew the certificate", func() { c.lookAgain(look) })
	}
	look, left := c.look, renewalPatience-time.Since(c.begun)
	c.mu.Unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-look:
	case <-timer.C:
	}
	return c.loaded.Load(), nil
}

func (c *certificate) lookAgain(look chan struct{}) {
	defer func() {
		c.mu.Lock()
		c.look = nil
		c.mu.Unlock()
		close(look)
	}()
	renewed, err := c.renew()
	switch {
	case err != nil:
		slog.Warn("stream certificate not renewed", "err", err)
	case renewed:
		slog.Info("stream certificate renewed", "file", c.file)
	}
}

func stampOf(info os.FileInfo) stamp {
	return stamp{info.ModTime(), info.Size(), info.Sys().(*syscall.Stat_t).Ino}
}
