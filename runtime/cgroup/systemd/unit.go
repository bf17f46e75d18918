package systemd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"

	"github.com/godbus/dbus/v5"
)

// property is a(sv) of systemd's calls.
type property struct {
	Name  string
	Value dbus.Variant
}

func set(name string, value any) property { return property{name, dbus.MakeVariant(value)} }

// unit is a unit that other units do not need: systemd's a(sa(sv)).
type unit struct {
	Name       string
	Properties []property
}

// startScope makes a scope of the process and returns when the process is in it.
func (m *Manager) startScope(ctx context.Context, group string, pid int, shares []property) error {
	name := path.Base(group)
	wanted := []property{
		set("Description", "container of cri-mini"),
		set("Slice", path.Base(path.Dir(group))),
		set("PIDs", []uint32{uint32(pid)}),
		// Below its own group systemd then leaves everything as we set it, and
		// gives us all controllers.
		set("Delegate", true),
		// Else a scope that failed stays, and its name is taken.
		set("CollectMode", "inactive-or-failed"),
		// Else the node's default for services would limit containers.
		set("TasksMax", uint64(math.MaxUint64)),
	}
	wanted = append(wanted, shares...)
	start := func() error {
		return m.job(ctx, name, "StartTransientUnit", name, "fail", wanted, []unit{})
	}
	err := start()
	if errorName(err) == errUnitExists {
		// Left by a keeper that has just ended, or failed where CollectMode is
		// not known.
		if err := m.free(ctx, name); err != nil {
			return err
		}
		err = start()
	}
	return err
}

// stop ends a unit. One that is not there is fine.
func (m *Manager) stop(ctx context.Context, name string) error {
	err := m.job(ctx, name, "StopUnit", name, "replace")
	if errorName(err) == errNoSuchUnit {
		return nil
	}
	return err
}

// free ends a unit and has systemd forget that it failed.
func (m *Manager) free(ctx context.Context, name string) error {
	if err := m.stop(ctx, name); err != nil {
		return err
	}
	err := m.simple(ctx, name, "ResetFailedUnit", name)
	if errorName(err) == errNoSuchUnit {
		return nil
	}
	return err
}

// simple calls a method that makes no job; again, when the connection was lost.
func (m *Manager) simple(ctx context.Context, name, method string, arguments ...any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	once := func() error {
		conn, err := m.connection(ctx)
		if err != nil {
			return err
		}
		return lost(ctx, call(ctx, conn, method, arguments...).Err)
	}
	err := once()
	if errors.Is(err, errLost) {
		err = once()
	}
	if err != nil {
		return fmt.Errorf("systemd: %s of %s: %w", method, name, err)
	}
	return nil
}

func call(ctx context.Context, conn *dbus.Conn, method string, arguments ...any) *dbus.Call {
	return conn.Object(service, object).CallWithContext(ctx, manager+"."+method, 0, arguments...)
}

var errLost = errors.New("the connection was lost")

// lost marks the error of a call that got no answer for that reason.
func lost(ctx context.Context, err error) error {
	if err == nil || errorName(err) != "" || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// job calls a method that makes a job of a unit, and returns when that is done.
// When the connection is lost meanwhile, the call is made again: one that was
// carried out is refused the second time, which stop and startScope deal with.
func (m *Manager) job(ctx context.Context, name, method string, arguments ...any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := m.jobOnce(ctx, name, method, arguments)
	if errors.Is(err, errLost) {
		err = m.jobOnce(ctx, name, method, arguments)
	}
	if err != nil {
		return fmt.Errorf("systemd: %s of %s: %w", method, name, err)
	}
	return nil
}

func (m *Manager) jobOnce(ctx context.Context, name, method string, arguments []any) error {
	conn, err := m.connection(ctx)
	if err != nil {
		return err
	}
	ends, done := m.wait(name)
	defer done()
	var job dbus.ObjectPath
	if err := call(ctx, conn, method, arguments...).Store(&job); err != nil {
		return lost(ctx, err)
	}
	for {
		select {
		case end := <-ends:
			switch {
			case end.job != job:
			case end.result == "done":
				return nil
			default:
				return fmt.Errorf("the job ended as %q", end.result)
			}
		case <-conn.Context().Done():
			return errLost
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
	}
}

func errorName(err error) string {
	if refused := (dbus.Error{}); errors.As(err, &refused) {
		return refused.Name
	}
	return ""
}
