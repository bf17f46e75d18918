package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxBreaks is how often in a row a connection may break without bringing
	// anything worth mentioning.
	maxBreaks = 5
	// maxDrain is how much is read only to learn whether a blob that made no
	// sense was at least the blob that was asked for.
	maxDrain = 16 << 20
)

// Fetch hands the content of a blob to consume, from the first host that has
// it. The content is checked while it passes: consume sees it before it is
// known to be good and must not act on it until Fetch returns nil. When a host
// fails half way, consume is called again with the content of the next one.
// An error of consume ends the fetch, unless the blob was bad, too.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, consume func(io.Reader) error) error {
	return r.eachHost(ctx, "blob "+desc.Digest.String(), canPull, func(ep *endpoint) error {
		b := &blob{ctx: ctx, repo: r, ep: ep, desc: desc, verifier: desc.Digest.Verifier()}
		defer b.close()
		err := consume(b)
		if err == nil || (b.failed == nil && desc.Size-b.offset <= maxDrain) {
			io.Copy(io.Discard, b) // the outcome is in b.failed
		}
		if b.failed != nil && b.failed != io.EOF {
			return b.failed
		}
		if err != nil {
			return &finalError{err}
		}
		return nil
	})
}

// blob reads one blob from one host, over as many connections as it takes.
type blob struct {
	ctx      context.Context
	repo     *Repository
	ep       *endpoint
	desc     ocispec.Descriptor
	verifier digest.Verifier

	conn   *connection // nil: not open
	offset int64
	breaks int
	failed error // what every further Read returns
}

func (b *blob) close() {
	if b.conn != nil {
		b.conn.close()
		b.conn = nil
	}
}

func (b *blob) Read(p []byte) (int, error) {
	for b.failed == nil {
		if b.offset == b.desc.Size {
			b.failed = b.end()
			break
		}
		if b.conn == nil {
			if err := b.open(); err != nil {
				b.broke(err)
				continue
			}
		}
		n, err := b.conn.read(p[:min(int64(len(p)), b.desc.Size-b.offset)])
		b.verifier.Write(p[:n])
		b.offset += int64(n)
		if err != nil && b.offset < b.desc.Size {
			if b.conn.got >= b.repo.o.MinProgress {
				b.breaks = 0
			}
			b.close()
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			b.broke(&networkError{fmt.Errorf("blob ended after %d of %d bytes: %w", b.offset, b.desc.Size, err)})
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.failed
}

// broke decides whether the connection is worth opening again. A first
// connection that never was is for the caller, who may know other hosts.
func (b *blob) broke(err error) {
	if b.ctx.Err() != nil {
		b.failed = b.ctx.Err()
		return
	}
	b.breaks++
	if b.offset == 0 || b.breaks > maxBreaks || !worthRetry(err) {
		b.failed = err
		return
	}
	if err := sleep(b.ctx, max(retryAfter(err), b.repo.backoff(1))); err != nil {
		b.failed = err
	}
}

// end checks the blob after its last byte.
func (b *blob) end() error {
	if b.conn != nil && b.conn.more() {
		return fmt.Errorf("blob is larger than the %d bytes promised: %w", b.desc.Size, ErrCorrupt)
	}
	if !b.verifier.Verified() {
		return fmt.Errorf("blob does not have digest %s: %w", b.desc.Digest, ErrCorrupt)
	}
	return io.EOF
}

// open asks for what is still missing.
func (b *blob) open() error {
	header := map[string]string{}
	if b.offset > 0 {
		header["Range"] = fmt.Sprintf("bytes=%d-", b.offset)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	resp, err := b.repo.request(ctx, b.ep, http.MethodGet, "blobs/"+b.desc.Digest.String(), header)
	if err != nil {
		cancel()
		return err
	}
	c := &connection{body: resp.Body, cancel: cancel, window: b.repo.o.Window, least: b.repo.o.MinProgress}
	skip := int64(0)
	switch resp.StatusCode {
	case http.StatusOK:
		skip = b.offset // a host that does not know ranges starts again
		if l := resp.ContentLength; l >= 0 && l != b.desc.Size {
			err = fmt.Errorf("blob has %d bytes, %d were promised: %w", l, b.desc.Size, ErrCorrupt)
		}
	case http.StatusPartialContent:
		err = b.checkRange(resp.Header.Get("Content-Range"))
	default:
		err = readStatus(resp)
	}
	if err == nil && skip > 0 {
		err = c.skip(skip)
	}
	if err != nil {
		c.close()
		return err
	}
	b.conn = c
	return nil
}

// checkRange wants "bytes offset-end/size".
func (b *blob) checkRange(s string) error {
	rest, ok := strings.CutPrefix(s, "bytes ")
	first, rest, ok2 := strings.Cut(rest, "-")
	_, size, ok3 := strings.Cut(rest, "/")
	start, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil || start != b.offset || (size != "*" && size != strconv.FormatInt(b.desc.Size, 10)) {
		return fmt.Errorf("Content-Range %q does not answer bytes=%d- of %d: %w", harmless(s), b.offset, b.desc.Size, ErrCorrupt)
	}
	return nil
}

var errStalled = errors.New("connection too slow")

// connection is the body of one answer with a watch on its progress. Only the
// time spent waiting for bytes counts: when the disk is slow, the registry is
// not to blame.
type connection struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	window time.Duration
	least  int64

	got     int64         // in all
	waited  time.Duration // in this window
	recent  atomic.Int64  // bytes in this window
	stalled atomic.Bool
	timer   *time.Timer
}

func (c *connection) read(p []byte) (int, error) {
	if c.timer == nil {
		c.timer = time.AfterFunc(c.window, c.check)
	} else {
		c.timer.Reset(max(c.window-c.waited, time.Millisecond))
	}
	start := time.Now()
	n, err := c.body.Read(p)
	c.timer.Stop()
	c.waited += time.Since(start)
	c.got += int64(n)
	if c.recent.Add(int64(n)) >= c.least {
		c.recent.Store(0)
		c.waited = 0
	}
	if c.stalled.Load() {
		err = fmt.Errorf("%w: under %d bytes in %v", errStalled, c.least, c.window)
	}
	return n, err
}

// check runs when a window of waiting is over and too little has come.
func (c *connection) check() {
	c.stalled.Store(true)
	c.cancel()
}

func (c *connection) skip(n int64) error {
	_, err := io.CopyN(io.Discard, readerFunc(c.read), n)
	if err != nil {
		return &networkError{fmt.Errorf("skip %d bytes: %w", n, err)}
	}
	c.got = 0
	return nil
}

// more tells whether there is anything after the last byte.
func (c *connection) more() bool {
	var one [1]byte
	n, _ := c.read(one[:])
	return n > 0
}

func (c *connection) close() {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.body.Close()
	c.cancel()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
