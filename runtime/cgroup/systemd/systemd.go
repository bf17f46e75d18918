// Package systemd asks systemd for control groups, where systemd owns the tree.
//
// A Manager is the one connection to systemd, by the system bus; it comes back by
// itself after a loss. A scope is systemd's name for a group of processes that
// others started. Each has a keeper, a process that does nothing: systemd makes
// no scope without a process and removes one as soon as the last has ended.
// What a scope holds is in its Inside, a group that is delegated to us.
//
// The package sets no limits and knows no containers. Decision 0005 says why it
// is done this way.
package systemd

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names on the bus.
const (
	service       = "org.freedesktop.systemd1"
	object        = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager       = service + ".Manager"
	properties    = "org.freedesktop.DBus.Properties"
	errNoSuchUnit = service + ".NoSuchUnit"
	errUnitExists = service + ".UnitExists"
)

// patience is how long a call and its job may take. A loaded systemd has been
// seen to need ten seconds and more.
const patience = time.Minute

// SystemBus is where systemd answers. The socket's place is part of D-Bus.
const SystemBus = "unix:path=/run/dbus/system_bus_socket"

// Manager is systemd. It is safe for concurrent use.
type Manager struct {
	address string
	root    string // of cgroup2
	program program

	mu      sync.Mutex // guards what follows
	conn    *dbus.Conn
	waiting map[string]map[chan<- removed]bool // for the end of a unit's jobs
}

// removed is the end of a job.
type removed struct {
	job    dbus.ObjectPath
	result string
}

// Booted tells whether systemd is the first process, as sd_booted(3) does.
func Booted() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// Open connects to systemd, which makes groups in the cgroup2 file system that is
// mounted at root.
func Open(ctx context.Context, address, root string) (*Manager, error) {
	m := &Manager{address: address, root: root, waiting: map[string]map[chan<- removed]bool{}}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := m.connection(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// Close ends the connection. Scopes stay.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.program.close()
	if m.conn == nil {
		return nil
	}
	return m.conn.Close()
}

// connection returns the one there is or, when that was lost, a new one.
func (m *Manager) connection(ctx context.Context) (*dbus.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && m.conn.Connected() {
		return m.conn, nil
	}
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd at %s: %w", m.address, err)
	}
	m.conn = conn
	return conn, nil
}

func (m *Manager) connect(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.Dial(m.address)
	if err != nil {
		return nil, err
	}
	// Neither greeting takes a context; a bus that is silent must not hold us.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals) // closed with the connection
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err == nil {
		err = conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(service), dbus.WithMatchObjectPath(object), dbus.WithMatchInterface(manager), dbus.WithMatchMember("JobRemoved"))
	}
	if err == nil {
		err = conn.Object(service, object).CallWithContext(ctx, manager+".Subscribe", 0).Err
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	go m.listen(signals)
	return conn, nil
}

// listen hands the ends of jobs to those who wait for them.
func (m *Manager) listen(signals <-chan *dbus.Signal) {
	for s := range signals {
		var (
			id     uint32
			unit   string
			ending removed
		)
		if s.Name != manager+".JobRemoved" || dbus.Store(s.Body, &id, &ending.job, &unit, &ending.result) != nil {
			continue
		}
		m.mu.Lock()
		for waiting := range m.waiting[unit] {
			select {
			case waiting <- ending:
			default: // more jobs of one unit than anybody starts
			}
		}
		m.mu.Unlock()
	}
}

// wait registers for the ends of a unit's jobs: before the first call, for the
// end may be told before the call returns.
func (m *Manager) wait(unit string) (ends <-chan removed, done func()) {
	c := make(chan removed, 16)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[unit] == nil {
		m.waiting[unit] = map[chan<- removed]bool{}
	}
	m.waiting[unit][c] = true
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting[unit], c)
		if len(m.waiting[unit]) == 0 {
			delete(m.waiting, unit)
		}
	}
}

// IsScope tells whether the group of that path is a scope of ours.
func IsScope(group string) bool {
	name := path.Base(group)
	return strings.HasPrefix(name, "cri-mini-") && strings.HasSuffix(name, ".scope")
}

// Inside is the group for the processes of a group: in a scope the one that is
// delegated to us, elsewhere the group itself.
func Inside(group string) string {
	if IsScope(group) {
		return group + "/container"
	}
	return group
}
