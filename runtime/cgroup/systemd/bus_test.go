package systemd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// bus is a systemd that answers at a socket of its own. Its units are names, its
// groups directories.
type bus struct {
	t       *testing.T
	address string
	root    string

	mu     sync.Mutex // guards what follows
	calls  []string
	units  map[string][]property
	result string // of jobs, instead of "done"
	silent bool   // jobs never end
	lose   int    // so many jobs end with the connection
	away   bool   // groups are made somewhere else
	serial uint32
	conns  []net.Conn
}

func newBus(t *testing.T) *bus {
	dir := t.TempDir()
	b := &bus{t: t, address: "unix:path=" + dir + "/bus", root: filepath.Join(dir, "cgroup"), units: map[string][]property{}}
	listener, err := net.Listen("unix", dir+"/bus")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, conn)
			b.mu.Unlock()
			served.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		b.hangUp()
		served.Wait()
	})
	return b
}

func (b *bus) open() *Manager {
	b.t.Helper()
	m, err := Open(b.t.Context(), b.address, b.root)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { m.Close() })
	return m
}

func (b *bus) hangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}

// told lists the calls about units, and starts anew.
func (b *bus) told() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := strings.Join(b.calls, ", ")
	b.calls = nil
	return calls
}

func (b *bus) has(unit string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, has := b.units[unit]
	return has
}

func (b *bus) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	if _, err := in.ReadByte(); err != nil { // of zero, for credentials
		return
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		answer := "ERROR"
		switch {
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			answer = "OK 0123456789abcdef"
		case strings.HasPrefix(line, "AUTH"):
			answer = "REJECTED EXTERNAL"
		}
		if strings.HasPrefix(line, "BEGIN") {
			break
		}
		fmt.Fprintf(conn, "%s\r\n", answer)
	}
	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil || !b.answer(conn, call) {
			return
		}
	}
}

// answer carries a call out. It is false when the connection is to be lost.
func (b *bus) answer(conn net.Conn, call *dbus.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	method := call.Headers[dbus.FieldMember].Value().(string)
	switch method {
	case "Hello":
		b.reply(conn, call, ":1.1")
	case "AddMatch", "Subscribe":
		b.reply(conn, call)
	case "StartTransientUnit":
		name := call.Body[0].(string)
		b.calls = append(b.calls, "start "+name)
		if _, taken := b.units[name]; taken {
			b.refuse(conn, call, errUnitExists)
			return true
		}
		var set []property
		if err := dbus.Store(call.Body[2:3], &set); err != nil {
			b.t.Error(err)
		}
		b.units[name] = set
		b.makeGroup(name, set)
		return b.job(conn, call, name)
	case "StopUnit", "ResetFailedUnit":
		name := call.Body[0].(string)
		b.calls = append(b.calls, map[string]string{"StopUnit": "stop ", "ResetFailedUnit": "reset "}[method]+name)
		if _, there := b.units[name]; !there {
			b.refuse(conn, call, errNoSuchUnit)
			return true
		}
		delete(b.units, name)
		return b.job(conn, call, name)
	case "SetUnitProperties":
		name := call.Body[0].(string)
		b.calls = append(b.calls, "set "+name)
		var changed []property
		if err := dbus.Store(call.Body[2:], &changed); err != nil {
			b.t.Error(err)
		}
		for _, c := range changed {
			b.units[name] = append(slices.DeleteFunc(b.units[name], func(p property) bool { return p.Name == c.Name }), c)
		}
		b.reply(conn, call)
	default:
		b.t.Errorf("call of %s", method)
	}
	return true
}

// job tells the end of a job before the call that made it returns, which is the
// harder order.
func (b *bus) job(conn net.Conn, call *dbus.Message, unit string) bool {
	if b.lose > 0 {
		b.lose--
		return false
	}
	id := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", b.serial))
	if !b.silent {
		result := b.result
		if result == "" {
			result = "done"
		}
		b.send(conn, &dbus.Message{
			Type: dbus.TypeSignal,
			Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath: dbus.MakeVariant(object), dbus.FieldInterface: dbus.MakeVariant(manager),
				dbus.FieldMember: dbus.MakeVariant("JobRemoved"), dbus.FieldSender: dbus.MakeVariant(":1.0"),
			},
			Body: []any{uint32(1), id, unit, result},
		})
	}
	b.reply(conn, call, id)
	return true
}

func (b *bus) reply(conn net.Conn, call *dbus.Message, values ...any) {
	b.send(conn, &dbus.Message{Type: dbus.TypeMethodReply, Body: values, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
	}})
}

func (b *bus) refuse(conn net.Conn, call *dbus.Message, name string) {
	b.send(conn, &dbus.Message{Type: dbus.TypeError, Body: []any{"refused"}, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()), dbus.FieldErrorName: dbus.MakeVariant(name),
	}})
}

func (b *bus) send(conn net.Conn, m *dbus.Message) {
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	var text bytes.Buffer
	if err := m.EncodeTo(&text, binary.LittleEndian); err != nil {
		b.t.Error(err)
	}
	b.serial++
	binary.LittleEndian.PutUint32(text.Bytes()[8:], b.serial)
	io.Copy(conn, &text) // to nobody, if the test has ended
}

// makeGroup makes the directory of a unit where its slice is.
func (b *bus) makeGroup(name string, set []property) {
	at := slices.IndexFunc(set, func(p property) bool { return p.Name == "Slice" })
	if at < 0 || b.away {
		return
	}
	if err := os.MkdirAll(path.Join(b.root, set[at].Value.Value().(string), name), 0o755); err != nil {
		b.t.Error(err)
	}
}
