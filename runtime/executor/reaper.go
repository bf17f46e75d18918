package executor

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/undo"
	"cri-mini/runtime/boot"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/spawn"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// startInit starts the first process of a PID namespace that the pod shares,
// and adds the namespace to those made. Its entry is like that of a container:
// its end is told, also by a monitor that replaces this one.
func (e *Executor) startInit(ctx context.Context, s spec.Sandbox, made files) (started spec.Started, err error) {
	var back undo.Stack
	defer back.Run()
	// Noted before it is made: the group is to be found again by the sandbox's
	// id alone.
	if err := e.writeNote(initID(s.ID), noted{Cgroup: s.Cgroup}); err != nil {
		return started, err
	}
	back.Add(func() error { return e.dropNote(initID(s.ID)) })
	crashpoint.Here("pod.init-noted")
	group, err := e.makeGroup(ctx, s.Cgroup, cgroup.Resources{AllowAllDevices: true})
	if err != nil {
		return started, err
	}
	back.Add(func() error { return e.removeGroup(context.WithoutCancel(ctx), s.Cgroup) })
	crashpoint.Here("pod.init-group-made")
	dir, err := group.Open()
	if err != nil {
		return started, err
	}
	defer dir.Close()
	exe, err := e.initExe.get(sealedCopy)
	if err != nil {
		return started, fmt.Errorf("sealed copy of the program: %w", err)
	}
	program := spawn.Init([]string{"cri-mini: init"}, []string{boot.Variable + "=" + boot.Init}, nil, s.Label, spawn.Nobody(s.IDs),
		spawn.Surroundings{User: made["user"] != nil, LastCap: e.limits.lastCap})
	io, err := makeStreams(false, spec.ExecIO{})
	if err != nil {
		return started, err
	}
	defer io.theirs.close()
	parts := io.theirs.with(files{"exe": exe, "user": made["user"]})
	// To the end: the monitor would know an init that we do not.
	answer, got, err := e.spawn(context.WithoutCancel(ctx), initID(s.ID), program, parts, wire.TaskSpec{Cgroup: true}, []*os.File{dir})
	if err != nil {
		return started, err
	}
	back.Add(func() error {
		got.close()
		return e.forget(context.WithoutCancel(ctx), initID(s.ID), group.Kill)
	})
	crashpoint.Here("pod.init-started")
	pid, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", answer.PID))
	if err != nil {
		return started, err
	}
	made["pid"] = pid
	c := e.container(initID(s.ID))
	c.mu.Lock()
	c.running = &running{pid: int(answer.PID), started: answer.At, files: got, cgroup: s.Cgroup}
	e.storeTask(c)
	c.mu.Unlock()
	back.Keep()
	return spec.Started{PID: int(answer.PID), At: answer.At}, nil
}

// awaitInit waits until the init of a sandbox has taken its signal handlers
// away: before that a container's signal could end it. It ignores SIGCHLD last.
// It came up while the sandbox was made; on a busy node that may not be over.
func (e *Executor) awaitInit(sandbox string) error {
	r, err := e.running(initID(sandbox))
	if err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < initPatience; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid))
		if err != nil {
			return fmt.Errorf("the init has ended: %w", err)
		}
		_, mask, _ := strings.Cut(string(text), "\nSigIgn:\t")
		mask, _, _ = strings.Cut(mask, "\n")
		ignored, err := strconv.ParseUint(mask, 16, 64)
		if err != nil {
			return fmt.Errorf("signals of the init: %w", err)
		}
		if ignored&(1<<(unix.SIGCHLD-1)) != 0 {
			return nil
		}
	}
	return fmt.Errorf("the init %d is not ready after %s", r.pid, initPatience)
}

const initPatience = 30 * time.Second

// endInit ends the reaping init of a sandbox, and with it every process of
// the shared namespace. A sandbox without one is fine.
func (e *Executor) endInit(ctx context.Context, sandbox string) error {
	id := initID(sandbox)
	note, err := e.noteOf(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.killInit(ctx, id, note.Cgroup); err != nil {
		return err
	}
	crashpoint.Here("pod.init-forgotten")
	if err := e.removeGroup(ctx, note.Cgroup); err != nil {
		return err
	}
	crashpoint.Here("pod.init-group-gone")
	if err := os.Remove(filepath.Join(e.state, exitsDir, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return e.dropNote(id)
}

func (e *Executor) killInit(ctx context.Context, id, group string) error {
	if r, err := e.running(id); err == nil { // else an earlier daemon started it, perhaps just before it died
		if pidfd := r.files["pidfd"]; pidfd != nil { // the monitor gives none of one that has ended
			if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
				return err
			}
			if err := waitExit(ctx, pidfd); err != nil {
				return err
			}
		}
	}
	e.container(id).close() // before the monitor forgets it, or its successor gets it
	if err := e.forget(ctx, id, func() error { return e.endGroup(group) }); err != nil {
		return err
	}
	e.store.Drop(storedTask + id)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.containers, id)
	return nil
}

// ownProgram is a static binary that contains package boot.
var ownProgram = "/proc/self/exe"

// sealedCopy is our binary in memory that nobody can change: the init runs in
// a container's PID namespace, where /proc/1/exe leads to its file. The init's
// user may execute and not read it, for which the kernel lets nobody inside
// trace the init, though it be the same user.
func sealedCopy() (*os.File, error) {
	own, err := os.Open(ownProgram)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	if err := static(own); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("cri-mini-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cri-mini-init")
	_, err = io.Copy(f, own)
	if err == nil {
		err = f.Chmod(0o711)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// static says what is wrong with a program that needs a dynamic linker: the
// init's empty root has none, and the kernel would only say that a file is
// missing.
func static(program io.ReaderAt) error {
	f, err := elf.NewFile(program)
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("this program is dynamically linked; build it with CGO_ENABLED=0")
		}
	}
	return nil
}
