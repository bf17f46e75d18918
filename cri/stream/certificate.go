package stream

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// certificate is a pair of files that somebody renews while we run.
type certificate struct {
	file, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	stamps [2]stamp
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
	stamps, err := c.stat()
	if err != nil {
		return nil, err
	}
	if err := c.load(stamps); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) load(stamps [2]stamp) error {
	pair, err := tls.LoadX509KeyPair(c.file, c.key)
	if err != nil {
		return fmt.Errorf("stream certificate %s with key %s: %w", c.file, c.key, err)
	}
	c.loaded, c.stamps = &pair, stamps
	return nil
}

func (c *certificate) stat() (stamps [2]stamp, err error) {
	for i, name := range []string{c.file, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, fmt.Errorf("stream certificate: %w", err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size(), inode(info)}
	}
	return stamps, nil
}

// get is asked at each handshake. While the files are being replaced they may
// not fit each other or be absent: the pair that worked goes on serving.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps, err := c.stat()
	if err == nil && stamps != c.stamps {
		if err = c.load(stamps); err == nil {
			slog.Info("stream certificate renewed", "file", c.file)
		}
	}
	if err != nil {
		slog.Warn("stream certificate not renewed", "err", err)
	}
	return c.loaded, nil
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
