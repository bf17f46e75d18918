package executor

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// UpgradeMonitor has a monitor of another build execute our program in its own
// place: containers, pipes and connections stay. It comes after everything is
// learned, so that a monitor that dies over it can be replaced.
func (e *Executor) UpgradeMonitor(ctx context.Context) error {
	own, err := os.Open(ownProgram)
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := e.monitor.ofAnotherBuild(own)
	if err != nil || !other {
		return err
	}
	crashpoint.Here("upgrade.needed")
	err = e.monitor.upgrade(ctx)
	crashpoint.Here("upgrade.answered")
	if errors.Is(err, spec.ErrMonitorDied) {
		return nil // what takes its place is of our build
	}
	if err != nil {
		return err
	}
	e.log.Info("the monitor has executed this program in its place", "pid", e.monitor.pid())
	return nil
}

// ofAnotherBuild looks at the files, for a version can be the same in two.
func (c *client) ofAnotherBuild(own *os.File) (bool, error) {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/exe", c.pid()))
	if err != nil {
		return false, err
	}
	defer theirs.Close()
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(number(own), &a), unix.Fstat(number(theirs), &b)); err != nil {
		return false, err
	}
	if a.Dev == b.Dev && a.Ino == b.Ino {
		return false, nil
	}
	first, err := buildID(own)
	if err != nil {
		return false, err
	}
	second, err := buildID(theirs)
	return first != second, err
}

// buildID is what Go's linker notes in a program: a digest of all that went in
// and of what came out.
func buildID(program io.ReaderAt) (string, error) {
	f, err := elf.NewFile(program)
	if err != nil {
		return "", err
	}
	section := f.Section(".note.go.buildid")
	if section == nil {
		return "", errors.New("program without a build id")
	}
	note, err := section.Data()
	return string(note), err
}

// upgradeTime is how long an upgrade may take, processes that are being started
// included.
const upgradeTime = 10 * time.Second

// upgrade has the monitor execute our program. An error that is the monitor's
// own means that it goes on as before.
func (c *client) upgrade(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTime)
	defer cancel()
	program, err := readOnlyProgram()
	if err != nil {
		return err
	}
	defer program.Close()
	for {
		// Not sent again if the monitor dies over it: the next one is of our
		// build.
		conn, answer, _, err := c.bound(ctx, &wire.Request{Verb: wire.Upgrade}, []*os.File{program})
		if err == nil {
			unix.Close(conn)
			return c.greet(answer)
		}
		if !errors.Is(err, unix.EBUSY) || sleep(ctx) != nil {
			return err
		}
	}
}
