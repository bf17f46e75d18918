package stream

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// issue writes a certificate for node.test with a serial number, and its key.
func issue(t *testing.T, dir string, serial int64) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "node.test"}, DNSNames: []string{"node.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		// As a renewal does: a new file in place of the old.
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func TestStreamsOverTLSWithARenewedCertificate(t *testing.T) {
	noGoroutines(t)
	dir := t.TempDir()
	certificate, key := issue(t, dir, 1)
	s := serveAs(t, newMachine(), Config{Address: "127.0.0.1:0", Host: "node.test", Certificate: certificate, Key: key}, func(*limits) {})
	serial := func() int64 {
		t.Helper()
		var got int64
		dialer := websocket.Dialer{
			Subprotocols: []string{v5},
			NetDial:      func(network, _ string) (net.Conn, error) { return net.Dial(network, s.Address()) },
			TLSClientConfig: &tls.Config{ServerName: "node.test", InsecureSkipVerify: true, VerifyConnection: func(c tls.ConnectionState) error {
				got = c.PeerCertificates[0].SerialNumber.Int64()
				return c.PeerCertificates[0].VerifyHostname("node.test")
			}},
		}
		url := execURL(t, s, &criapi.ExecRequest{Cmd: []string{"cat"}, Stdin: true, Stdout: true})
		if !strings.HasPrefix(url, "https://node.test:") {
			t.Errorf("URL %s, want https://node.test:...", url)
		}
		ws, _, err := dialer.Dial("wss"+strings.TrimPrefix(url, "https"), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &socket{t: t, ws: ws, output: map[byte]string{}, end: make(chan error, 1)}
		defer ws.Close()
		c.read()
		c.send(stdinChannel, "secret")
		c.send(closeSignal, string([]byte{stdinChannel}))
		c.wait()
		if got := c.got(stdoutChannel); got != "secret" {
			t.Errorf("stdout %q, want secret", got)
		}
		return got
	}
	if got := serial(); got != 1 {
		t.Errorf("certificate %d, want 1", got)
	}
	issue(t, dir, 2)
	if got := serial(); got != 2 {
		t.Errorf("after the renewal certificate %d, want 2", got)
	}
	if err := os.WriteFile(certificate, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 {
		t.Errorf("with a broken file certificate %d, want still 2", got)
	}
	os.Remove(key)
	if got := serial(); got != 2 {
		t.Errorf("without a key certificate %d, want still 2", got)
	}
	issue(t, dir, 3)
	if got := serial(); got != 3 {
		t.Errorf("after it was mended certificate %d, want 3", got)
	}
}

func TestSPDYOverTLSEndsWithItsClient(t *testing.T) {
	noGoroutines(t)
	certificate, key := issue(t, t.TempDir(), 1)
	m := newMachine()
	s := serveAs(t, m, Config{Address: "127.0.0.1:0", Certificate: certificate, Key: key}, func(*limits) {})
	url := execURL(t, s, &criapi.ExecRequest{Cmd: []string{"cat"}, Stdin: true, Stdout: true})
	raw, err := tls.Dial("tcp", s.Address(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c := speakSPDY(t, raw, url, v4)
	c.stream("streamType", "error")
	in, out := c.stream("streamType", "stdin"), c.stream("streamType", "stdout")
	io.WriteString(in, "ping")
	buffer := make([]byte, 4)
	if _, err := io.ReadFull(out, buffer); err != nil || string(buffer) != "ping" {
		t.Fatalf("echo %q, %v", buffer, err)
	}
	raw.NetConn().Close()
	pid := <-m.started
	eventually(t, "the program is dead", func() bool { return gone(pid) })
}

func TestListenRefusesACertificateThatIsNone(t *testing.T) {
	dir := t.TempDir()
	certificate, key := issue(t, dir, 1)
	for _, c := range []Config{
		{Address: "127.0.0.1:0", Certificate: filepath.Join(dir, "none"), Key: key},
		{Address: "127.0.0.1:0", Certificate: key, Key: certificate},
	} {
		if s, err := Listen(c); err == nil || !strings.Contains(err.Error(), c.Certificate) {
			t.Errorf("Listen with %s: %v, %v; want an error that names it", c.Certificate, s, err)
		}
	}
}

func TestPlainAddressBeyondTheLoopbackMustBeAskedFor(t *testing.T) {
	if _, err := Listen(Config{Address: "0.0.0.0:0"}); err == nil || !strings.Contains(err.Error(), `"0.0.0.0:0"`) || !strings.Contains(err.Error(), "stream-plain") {
		t.Errorf("without a word: %v, want an error that names the address and the way out", err)
	}
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	s, err := Listen(Config{Address: "0.0.0.0:0", Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log %q, want a warning", log.String())
	}
	answer, err := s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
	if err != nil || !strings.HasPrefix(answer.Url, "http://127.0.0.1:") {
		t.Errorf("URL %s, %v; want one on the loopback", answer.GetUrl(), err)
	}
}

func TestURLNamesAHostThatClientsCanReach(t *testing.T) {
	for _, test := range []struct{ host, ip, want string }{
		{"", "10.0.0.1", "10.0.0.1:9"},
		{"", "fd00::1", "[fd00::1]:9"},
		{"", "0.0.0.0", "127.0.0.1:9"},
		{"", "::", "127.0.0.1:9"},
		{"node.test", "0.0.0.0", "node.test:9"},
		{"fd00::2", "::", "[fd00::2]:9"},
	} {
		if got := hostInURL(test.host, &net.TCPAddr{IP: net.ParseIP(test.ip), Port: 9}); got != test.want {
			t.Errorf("host %q at %s: %s, want %s", test.host, test.ip, got, test.want)
		}
	}
}

func TestHandshakesOutliveACertificateThatCannotBeRead(t *testing.T) {
	noGoroutines(t)
	dir := t.TempDir()
	certificate, key := issue(t, dir, 1)
	c, err := newCertificate(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	for what, make := range map[string]func() error{
		"a FIFO":             func() error { return syscall.Mkfifo(certificate, 0o600) },
		"a file without end": func() error { return os.Symlink("/dev/zero", certificate) },
		"a huge file": func() error {
			return errors.Join(os.WriteFile(certificate, nil, 0o600), os.Truncate(certificate, 1<<40))
		},
	} {
		if err := errors.Join(os.Remove(certificate), make()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		served := inBackground(func() *tls.Certificate { pair, _ := c.get(nil); return pair })
		select {
		case pair := <-served:
			if pair != c.loaded.Load() || pair == nil {
				t.Errorf("%s: the pair that worked is not served", what)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s holds the handshake", what)
		}
	}
}

func inBackground[T any](do func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- do() }()
	return done
}
