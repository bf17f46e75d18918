package testregistry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// Fault changes the answers to requests whose path contains Path. Set one of
// the fields below Times.
type Fault struct {
	Path  string // part of the path; empty: every request
	Times int    // how many answers are changed; 0: all
	Auth  bool   // only requests that carry an Authorization

	Status     int           // answer with this status instead
	RetryAfter int           // seconds, with Status
	Drop       int64         // break the connection after so many bytes of content
	Truncate   int64         // leave out so many bytes at the end, and say so in the length
	Append     string        // put this behind the content, and say so in the length
	Chunked    bool          // say nothing of the length
	Flip       bool          // change the last byte
	Delay      time.Duration // wait before the answer
	Stall      int64         // send so many bytes, then nothing more until the client goes
	Trickle    time.Duration // wait so long after each byte
	NoRange    bool          // answer with everything whatever was asked
	Type       string        // the Content-Type
	Digest     string        // the Docker-Content-Digest
	Content    []byte        // answer with this instead
	Redirect   string        // send the client to this address with the same path
}

// Fault puts a fault in. Earlier ones come first.
func (r *Registry) Fault(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	r.faults = append(r.faults, &f)
}

// ClearFaults takes all faults out.
func (r *Registry) ClearFaults() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

// fault finds the fault for a request and counts it.
func (r *Registry) fault(q *http.Request) *Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		if f.Times == 0 || !strings.Contains(q.URL.Path, f.Path) || (f.Auth && q.Header.Get("Authorization") == "") {
			continue
		}
		f.Times--
		return f
	}
	return nil
}

// misbehave works out the right answer and then spoils it.
func (r *Registry) misbehave(w http.ResponseWriter, q *http.Request, f *Fault) {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-q.Context().Done():
			return
		}
	}
	switch {
	case f.Status != 0:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
		}
		fail(w, f.Status, "FAULT", "this answer is a fault")
		return
	case f.Redirect != "":
		http.Redirect(w, q, f.Redirect+q.URL.RequestURI(), http.StatusTemporaryRedirect)
		return
	}
	if f.NoRange {
		q = q.Clone(q.Context())
		q.Header.Del("Range")
	}
	right := httptest.NewRecorder()
	r.answer(right, q)
	body := right.Body.Bytes()
	for name, values := range right.Header() {
		w.Header()[name] = values
	}
	if right.Code < 300 {
		body = f.spoil(w.Header(), body)
	}
	w.WriteHeader(right.Code)
	f.send(w, q, body)
}

// spoil changes content and headers.
func (f *Fault) spoil(h http.Header, body []byte) []byte {
	body = append([]byte{}, body...)
	if f.Content != nil {
		body = f.Content
	}
	body = append(body[:max(0, len(body)-int(f.Truncate))], f.Append...)
	if f.Flip && len(body) > 0 {
		body[len(body)-1] ^= 1
	}
	if f.Type != "" {
		h.Set("Content-Type", f.Type)
	}
	if f.Digest != "" {
		h.Set("Docker-Content-Digest", f.Digest)
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if f.Chunked {
		h.Del("Content-Length")
	}
	return body
}

func (f *Fault) send(w http.ResponseWriter, q *http.Request, body []byte) {
	if q.Method == http.MethodHead {
		return
	}
	flush := http.NewResponseController(w)
	switch {
	case f.Drop > 0:
		w.Write(body[:min(int(f.Drop), len(body))])
		flush.Flush()
		panic(http.ErrAbortHandler)
	case f.Stall > 0:
		w.Write(body[:min(int(f.Stall), len(body))])
		flush.Flush()
		<-q.Context().Done()
	case f.Trickle > 0:
		for i := range body {
			w.Write(body[i : i+1])
			flush.Flush()
			select {
			case <-time.After(f.Trickle):
			case <-q.Context().Done():
				return
			}
		}
	case f.Chunked:
		flush.Flush() // now the length cannot be found out any more
		w.Write(body)
	default:
		w.Write(body)
	}
}
