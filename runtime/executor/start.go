package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/atomicfile"
	"cri-mini/internal/crashpoint"
	"cri-mini/internal/hostpath"
	"cri-mini/internal/undo"
	"cri-mini/runtime/spawn"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// running is the descriptors of a started container; the monitor has them
// too, and gets ours should it die.
type running struct {
	pid     int
	started time.Time
	files   files // pidfd, stdin, stdout, stderr or terminal
	cgroup  string
	log     string
	logRoot string
	once    bool // StdinOnce
	user    bool
	tracer  bool // someone inside may trace a process that joins
}

func (r *running) close() { r.files.close() }

// alive tells whether the first process has not ended yet.
func (r *running) alive() bool {
	pidfd := r.files["pidfd"]
	return pidfd != nil && unix.PidfdSendSignal(int(pidfd.Fd()), 0, nil, 0) == nil
}

// Start runs the container's program. The error of a program that could not
// be executed is a *spawn.Error.
func (e *Executor) Start(ctx context.Context, id string) (spec.Started, error) {
	started, _, err := e.launch(ctx, id, false)
	return started, err
}

// StartAttached is Start with a view on the streams that misses nothing.
func (e *Executor) StartAttached(ctx context.Context, id string) (spec.Started, spec.Attachment, error) {
	started, view, err := e.launch(ctx, id, true)
	if err != nil {
		return spec.Started{}, nil, err
	}
	return started, view, nil
}

func (e *Executor) launch(ctx context.Context, id string, attach bool) (spec.Started, *attachment, error) {
	c := e.container(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prepared == nil {
		return spec.Started{}, nil, fmt.Errorf("container %s is not prepared: %w", id, ErrUnknown)
	}
	started, view, err := e.start(ctx, c, attach)
	if err != nil {
		return spec.Started{}, nil, err
	}
	// The monitor holds the mount until the exit; our copy would keep it
	// longer.
	c.prepared.close()
	c.prepared = nil
	c.rootfs.Close()
	c.rootfs = nil
	return started, view, nil
}

func (e *Executor) start(ctx context.Context, c *container, attach bool) (spec.Started, *attachment, error) {
	p := c.prepared
	var back undo.Stack
	defer back.Run()
	io, err := openStreams(p.spec)
	if err != nil {
		return spec.Started{}, nil, err
	}
	back.Add(func() error { io.ours.close(); return nil })
	defer io.theirs.close()

	parts := p.files.with(io.theirs)
	parts["rootfs"] = c.rootfs.File
	task, extra, closeExtra, err := e.taskFiles(ctx, p, io)
	if err != nil {
		return spec.Started{}, nil, err
	}
	defer closeExtra()
	extra = append(extra, c.rootfs.File)
	task.Rootfs, task.Attach = true, attach
	// A first note before the start: a daemon that dies right after it must
	// leave enough for the next one to know the task by.
	first := noted{Cgroup: p.spec.Cgroup, Log: p.spec.LogPath, LogRoot: p.spec.LogRoot, User: p.user, Tracer: canTrace(p.spec), Once: p.spec.StdinOnce}
	if err := e.writeNote(c.id, first); err != nil {
		return spec.Started{}, nil, fmt.Errorf("note of the task: %w", err)
	}
	crashpoint.Here("start.noted")
	answer, got, err := e.spawn(ctx, c.id, p.program, parts, task, extra)
	crashpoint.Here("start.answered")
	if err != nil {
		// The answer may have been lost, and the program run.
		return spec.Started{}, nil, errors.Join(c.explain(err), p.group.Kill())
	}
	for name, f := range io.ours {
		got[name] = f
	}
	back.Keep()
	c.running = &running{
		pid: int(answer.PID), started: answer.At, files: got, cgroup: p.spec.Cgroup, log: p.spec.LogPath, logRoot: p.spec.LogRoot,
		once: p.spec.StdinOnce, user: p.user, tracer: canTrace(p.spec),
	}
	e.note(c)
	e.storeTask(c)
	crashpoint.Here("start.noted-with-pid")
	started := spec.Started{PID: int(answer.PID), At: answer.At}
	if !attach {
		return started, nil, nil
	}
	view, err := e.attached(c)
	return started, view, err
}

// canTrace tells whether a process inside may have CAP_SYS_PTRACE over one
// that is just joining.
func canTrace(s spec.Container) bool {
	return s.PID != spec.PIDContainer || canTraceOthers(s)
}

// canTraceOthers tells whether it is the container itself that may.
func canTraceOthers(s spec.Container) bool {
	return s.Privileged || s.Process.Capabilities.Bounding&(1<<unix.CAP_SYS_PTRACE) != 0
}

// expectTracer remembers that somebody with CAP_SYS_PTRACE comes into a running
// container's PID namespace: what joins it from now on must not share the
// monitor's memory.
func (e *Executor) expectTracer(id string) error {
	c := e.container(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return fmt.Errorf("container %s is not running: %w", id, ErrUnknown)
	}
	if !c.running.tracer {
		changed := *c.running // others may be reading it
		changed.tracer = true
		c.running = &changed
		e.note(c)
	}
	return nil
}

// spawn lets the monitor run a program with these descriptors.
func (e *Executor) spawn(ctx context.Context, id string, program spawn.Program, parts files, task wire.TaskSpec, extra []*os.File) (*wire.Answer, files, error) {
	request, send, err := spawnRequest(id, program, parts, task, extra)
	if err != nil {
		return nil, nil, err
	}
	answer, got, err := e.monitor.request(ctx, request, send)
	if err != nil {
		return nil, nil, err
	}
	return checked(program, answer, got)
}

// spawnRequest gathers what a spawn needs. The program's first file, hostproc,
// is the monitor's own.
func spawnRequest(id string, program spawn.Program, parts files, task wire.TaskSpec, extra []*os.File) (*wire.Request, []*os.File, error) {
	image, err := program.Link()
	if err != nil {
		return nil, nil, err
	}
	send, err := parts.pick(program.Files[1:])
	if err != nil {
		return nil, nil, err
	}
	task.Files = uint32(len(send))
	return &wire.Request{Verb: wire.Spawn, ID: id, Image: image, Task: task}, append(send, extra...), nil
}

// checked turns a failed step into an error.
func checked(program spawn.Program, answer *wire.Answer, got files) (*wire.Answer, files, error) {
	if answer.Failed == -1 {
		return answer, got, nil
	}
	got.close()
	return nil, nil, program.Explain(spawn.Result{Failed: int(answer.Failed), Errno: answer.Errno})
}

// taskFiles are the descriptors for the monitor's own use, in the order of
// wire.TaskSpec, up to the terminal.
func (e *Executor) taskFiles(ctx context.Context, p *prepared, io *streams) (wire.TaskSpec, []*os.File, func(), error) {
	task := wire.TaskSpec{Cgroup: true, Record: true, StdinOnce: p.spec.StdinOnce}
	opened := files{}
	var list []*os.File
	add := func(name string, f *os.File, err error) error {
		if err == nil {
			opened[name] = f
			list = append(list, f)
		}
		return err
	}
	dir, err := p.group.Open()
	err = add("cgroup", dir, err)
	if err == nil {
		record, e1 := os.OpenFile(filepath.Join(e.state, exitsDir), unix.O_PATH|unix.O_DIRECTORY, 0)
		err = add("record", record, e1)
	}
	if err == nil && p.spec.LogPath != "" {
		task.Log = true
		log, e1 := openLogInTime(ctx, p.spec.LogRoot, p.spec.LogPath)
		err = add("log", log, e1)
	}
	if err != nil {
		opened.close()
		return task, nil, nil, err
	}
	for name, flag := range map[string]*bool{"stdin": &task.Stdin, "stdout": &task.Stdout, "stderr": &task.Stderr} {
		*flag = io.ours[name] != nil
	}
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		if f := io.ours[name]; f != nil {
			list = append(list, f)
		}
	}
	if io.socket != nil {
		task.Terminal = true
		list = append(list, io.socket)
	}
	return task, list, opened.close, nil
}

// ReopenLog makes the monitor continue in a new file.
func (e *Executor) ReopenLog(ctx context.Context, id, path string) error {
	root := ""
	if r, err := e.running(id); err == nil {
		root = r.logRoot
	}
	var before error
	f, err := hostpath.Ask(ctx, "log_path", path, func() (*os.File, error) {
		_, before = os.Lstat(path)
		return openLog(root, path)
	}, func(f *os.File) { f.Close() })
	if err != nil {
		return err
	}
	defer f.Close()
	crashpoint.Here("log.opened")
	_, _, err = e.monitor.request(ctx, &wire.Request{Verb: wire.ReopenLog, ID: id}, []*os.File{f})
	crashpoint.Here("log.handed-over")
	if errors.Is(err, unix.ESRCH) {
		if errors.Is(before, os.ErrNotExist) {
			os.Remove(path) // ours, and nobody writes to it
		}
		return fmt.Errorf("container %s: %w", id, ErrUnknown)
	}
	return err
}

// noted is what we keep on tmpfs of a started container, for the case that
// the monitor dies and we, later, have only the kernel to ask.
type noted struct {
	PID     int       `json:"pid"`
	Inode   uint64    `json:"inode"` // of the pidfd: pids are used again, these are not
	Started time.Time `json:"started"`
	Cgroup  string    `json:"cgroup"`
	Log     string    `json:"log,omitempty"`
	LogRoot string    `json:"logRoot,omitempty"`
	User    bool      `json:"user,omitempty"`
	Tracer  bool      `json:"tracer,omitempty"`
	Once    bool      `json:"stdinOnce,omitempty"`
}

func (e *Executor) note(c *container) {
	r := c.running
	var st unix.Stat_t
	err := unix.Fstat(int(r.files["pidfd"].Fd()), &st)
	if err == nil {
		err = e.writeNote(c.id, noted{PID: r.pid, Inode: st.Ino, Started: r.started, Cgroup: r.cgroup, Log: r.log, LogRoot: r.logRoot, User: r.user, Tracer: r.tracer, Once: r.once})
	}
	if err != nil {
		e.log.Warn("cannot note a started container", "container", c.id, "err", err)
	}
}

func (e *Executor) writeNote(id string, n noted) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return atomicfile.Volatile(filepath.Join(e.state, tasksDir, id), text, 0o600)
}

func (e *Executor) dropNote(id string) error {
	if err := os.Remove(filepath.Join(e.state, tasksDir, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
