package stream

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strconv"
	"testing"

	"github.com/moby/spdystream/spdy"
)

// What clients do that do not use a library.

// upgradeRaw is a connection that waits for frames.
func upgradeRaw(t testing.TB, url, protocol string) net.Conn {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", spdyName)
	request.Header.Set(protocolHeader, protocol)
	conn, err := net.Dial("tcp", request.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%s: status %d, want an upgrade", url, answer.StatusCode)
	}
	return conn
}

// openRaw opens streams of these types, numbered 1, 3, 5.
func openRaw(t testing.TB, url string, types ...string) net.Conn {
	t.Helper()
	var all []http.Header
	for _, name := range types {
		all = append(all, http.Header{"streamtype": {name}})
	}
	conn := upgradeRaw(t, url, v4)
	if _, err := conn.Write(openStreams(t, all...)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// openStreams are the frames that open streams 1, 3, 5 and so on.
func openStreams(t testing.TB, headers ...http.Header) []byte {
	t.Helper()
	var wire bytes.Buffer
	framer, err := spdy.NewFramer(&wire, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range headers {
		if err := framer.WriteFrame(&spdy.SynStreamFrame{StreamId: spdy.StreamId(2*i + 1), Headers: h}); err != nil {
			t.Fatal(err)
		}
	}
	return wire.Bytes()
}

// forwardHeaders open n forwards: the errors of the first on stream 1, its data
// on stream 3.
func forwardHeaders(l net.Listener, n int) []http.Header {
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	var all []http.Header
	for i := range n {
		for _, name := range []string{"error", "data"} {
			all = append(all, http.Header{"streamtype": {name}, "port": {port}, "requestid": {strconv.Itoa(i)}})
		}
	}
	return all
}
