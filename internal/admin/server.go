package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"

	"cri-mini/image"
	"cri-mini/podsandbox"
	"cri-mini/podsandbox/history"
)

// Server is the daemon's end.
type Server struct {
	Pods   *podsandbox.Pods
	Images *image.Store
	// RegistryConfigDir is where Images looks for what registries need.
	RegistryConfigDir string
	// Signal sends a signal to a container's first process.
	Signal func(container string, number int) error
	// Monitor is the process id of the monitor.
	Monitor func() int
	// Stop begins the end of the daemon. With pods it returns when they and
	// all that belongs to them are gone.
	Stop func(ctx context.Context, pods bool) error
	Log  *slog.Logger
}

// HTTP is the server as net/http has it.
func (s *Server) HTTP() *http.Server {
	return &http.Server{Handler: s.handler(), ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathStop, answer(s.stop))
	mux.HandleFunc("POST "+pathImport, answer(s.importImage))
	mux.HandleFunc("POST "+pathWhy, answer(s.why))
	mux.HandleFunc("POST "+pathAudit, answer(s.audit))
	mux.HandleFunc("POST "+pathPull, s.pull)
	mux.HandleFunc("POST "+pathVerify, s.verify)
	mux.HandleFunc("POST "+pathExec, conversation(s.exec))
	mux.HandleFunc("POST "+pathAttach, conversation(s.attach))
	mux.HandleFunc("POST "+pathRun, conversation(s.run))
	return mux
}

func (s *Server) stop(ctx context.Context, r StopRequest) (struct{}, error) {
	return struct{}{}, s.Stop(history.Asked(ctx, "cri-mini stop"), r.Pods)
}

func (s *Server) why(_ context.Context, r WhyRequest) (history.Answer, error) {
	return s.Pods.Why(r.Word)
}

func (s *Server) audit(ctx context.Context, r AuditRequest) (AuditAnswer, error) {
	report, err := s.Pods.Audit(ctx, r.Remove, r.Remove)
	return AuditAnswer{Report: report, Daemon: os.Getpid(), Monitor: s.Monitor()}, err
}

// answer serves a request that has one answer.
func answer[Request, Answer any](do func(context.Context, Request) (Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request Request
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		result, err := do(r.Context(), request)
		if err != nil {
			if e := (*Advised)(nil); errors.As(err, &e) {
				w.Header().Set(hintHeader, e.Hint)
			}
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		json.NewEncoder(w).Encode(result)
	}
}

// conversation serves a request that turns into a conversation once begin has
// found a program to talk about.
func conversation[Request any](begin func(context.Context, Request) (*talk, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request Request
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		t, err := begin(r.Context(), request)
		if err != nil {
			if e := (*StartError)(nil); errors.As(err, &e) {
				w.Header().Set(startCode, strconv.Itoa(e.Code))
			}
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		conn, err := upgrade(w)
		if err != nil {
			t.end()
			return
		}
		defer conn.Close()
		// Not the request's context: it ended with the upgrade.
		last := converse(context.WithoutCancel(r.Context()), conn, t.program)
		t.end()
		if last != nil {
			(&frameWriter{w: conn}).send(last.kind, last.data)
		}
	}
}

// talk is a program with what is to be done when the conversation is over.
type talk struct {
	program
	end func()
}

// upgraded is a connection with the bytes that were read ahead of it.
type upgraded struct {
	net.Conn
	ahead *bufio.Reader
}

func (u upgraded) Read(p []byte) (int, error) { return u.ahead.Read(p) }

func upgrade(w http.ResponseWriter) (net.Conn, error) {
	conn, buffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: cri-mini\r\n\r\n")
	if err != nil {
		conn.Close()
		return nil, err
	}
	return upgraded{conn, buffer.Reader}, nil
}
