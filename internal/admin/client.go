package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"cri-mini/podsandbox/history"
)

// Client is the command line's end. Every request has a connection of its own.
type Client struct {
	Path string // of the socket
}

// ErrNoDaemon says that nobody answers at the socket.
var ErrNoDaemon = errors.New("no daemon answers")

// Check tells whether a daemon answers.
func (c Client) Check() error {
	conn, err := c.dial(context.Background())
	if err == nil {
		conn.Close()
	}
	return err
}

func (c Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.Path)
	if err != nil {
		// The cause without the address, which stands there already.
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrNoDaemon, c.Path, err)
	}
	return conn, nil
}

// Stop ends the daemon; see StopRequest.
func (c Client) Stop(ctx context.Context, r StopRequest) error {
	return c.call(ctx, pathStop, r, nil)
}

// Import takes an image from a path.
func (c Client) Import(ctx context.Context, r ImportRequest) (ImportAnswer, error) {
	var answer ImportAnswer
	return answer, c.call(ctx, pathImport, r, &answer)
}

// Why explains a pod or container.
func (c Client) Why(ctx context.Context, r WhyRequest) (history.Answer, error) {
	var answer history.Answer
	return answer, c.call(ctx, pathWhy, r, &answer)
}

// Audit compares kernel and disk with the daemon's records.
func (c Client) Audit(ctx context.Context, r AuditRequest) (AuditAnswer, error) {
	var answer AuditAnswer
	return answer, c.call(ctx, pathAudit, r, &answer)
}

// Pull fetches an image and returns its ID.
func (c Client) Pull(ctx context.Context, r PullRequest, tell func(Layer)) (string, error) {
	conn, body, _, err := c.post(ctx, pathPull, r)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	lines := json.NewDecoder(body)
	for {
		var p Progress
		if err := lines.Decode(&p); err != nil {
			return "", c.lost(ctx, err)
		}
		switch {
		case p.Error != "":
			return "", said(p.Error, p.Hint)
		case p.ID != "":
			return p.ID, nil
		case p.Layer != nil:
			tell(*p.Layer)
		}
	}
}

// Exec starts a program in a container.
func (c Client) Exec(ctx context.Context, r ExecRequest) (*Session, error) {
	return c.converse(ctx, pathExec, r)
}

// Attach joins the streams of a container's first program.
func (c Client) Attach(ctx context.Context, r AttachRequest) (*Session, error) {
	return c.converse(ctx, pathAttach, r)
}

// Run makes a pod that lives as long as the session.
func (c Client) Run(ctx context.Context, r RunRequest) (*Session, error) {
	return c.converse(ctx, pathRun, r)
}

func (c Client) converse(ctx context.Context, path string, request any) (*Session, error) {
	conn, rest, free, err := c.post(ctx, path, request)
	if err != nil {
		return nil, err
	}
	if !free() {
		return nil, ctx.Err()
	}
	return newSession(conn, rest), nil
}

func (c Client) call(ctx context.Context, path string, request, answer any) error {
	conn, body, _, err := c.post(ctx, path, request)
	if err != nil {
		return err
	}
	defer conn.Close()
	if answer == nil {
		_, err = io.Copy(io.Discard, body)
	} else {
		err = json.NewDecoder(body).Decode(answer)
	}
	return c.lost(ctx, err)
}

func (c Client) lost(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// post sends a request and gives what follows a good answer's head. The
// connection ends with ctx, unless free is called before.
func (c Client) post(ctx context.Context, path string, request any) (_ net.Conn, rest io.Reader, free func() bool, _ error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, nil, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://cri-mini"+path, bytes.NewReader(text))
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	free = context.AfterFunc(ctx, func() { conn.Close() })
	buffer := bufio.NewReader(conn)
	var answer *http.Response
	if err = r.Write(conn); err == nil {
		answer, err = http.ReadResponse(buffer, r)
	}
	if err != nil {
		conn.Close()
		return nil, nil, nil, c.lost(ctx, err)
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return conn, answer.Body, free, nil
	case http.StatusSwitchingProtocols:
		return conn, buffer, free, nil
	}
	defer conn.Close()
	words, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, nil, nil, c.lost(ctx, err)
	}
	what := strings.TrimSpace(string(words))
	if code, err := strconv.Atoi(answer.Header.Get(startCode)); err == nil {
		return nil, nil, nil, &StartError{Code: code, Words: what}
	}
	return nil, nil, nil, said(what, answer.Header.Get(hintHeader))
}
