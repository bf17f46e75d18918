package spawn

import (
	"encoding/binary"
	"errors"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Exec makes the program of a process that joins a container.
//
// It expects the files hostproc; target, the pidfd of a process in the
// container; and console or stdin, stdout and stderr.
func Exec(p spec.Process, s Surroundings) Program {
	b := newBuilder()
	b.Copy = s.Copy
	b.hostLimits(p)
	// All at once, through one descriptor: no moment in between.
	kinds := unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID
	if s.User {
		kinds |= unix.CLONE_NEWUSER
	}
	b.call("join the container", unix.SYS_SETNS, File("target"), Num(kinds))
	if s.User {
		b.becomeRoot()
	}
	if p.Terminal {
		b.terminal(Num(unix.AT_FDCWD), p)
	}
	b.enterFolder(p.Cwd)
	// The PID namespace is joined last, by the fork: only a process without
	// any privilege beyond the container's is ever visible inside.
	b.finish(p, s, true)
	b.Files = append([]string{"hostproc", "target"}, stdioFiles(p)...)
	return b.Program
}

func stdioFiles(p spec.Process) []string {
	if p.Terminal {
		return []string{"console"}
	}
	return []string{"stdin", "stdout", "stderr"}
}

// terminal takes a pair from the container's own devpts, keeps one end for
// the program and sends the other through the socket.
func (b *builder) terminal(root Arg, p spec.Process) {
	const what = "allocate a terminal"
	resolve := uint64(unix.RESOLVE_NO_MAGICLINKS)
	if root.kind == file {
		resolve |= unix.RESOLVE_IN_ROOT
	}
	b.call(what, unix.SYS_OPENAT2, root, Text("/dev/pts/ptmx"), openHow(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0, resolve), Num(howSize)).save("master")
	b.call(what, unix.SYS_IOCTL, Saved("master"), Num(unix.TIOCSPTLCK), Bytes(make([]byte, 4)))
	// By the descriptor of the master: a name in /dev/pts could have been
	// replaced (CVE-2025-52565).
	b.call(what, unix.SYS_IOCTL, Saved("master"), Num(unix.TIOCGPTPEER), Num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).save("terminal")
	b.call(what, unix.SYS_FCHOWN, Saved("terminal"), Num(p.User.UID), Num(uint64(0xffffffff)))
	if p.Width > 0 && p.Height > 0 {
		b.call("set the size of the terminal", unix.SYS_IOCTL, Saved("terminal"), Num(unix.TIOCSWINSZ), Bytes(winsize(p)))
	}
	b.call(what, unix.SYS_SENDMSG, File("console"), FDMessage("master"), Num(0))
}

// winsize is struct winsize, whose pixels nobody knows.
func winsize(p spec.Process) []byte {
	b := binary.NativeEndian.AppendUint16(nil, p.Height)
	b = binary.NativeEndian.AppendUint16(b, p.Width)
	return append(b, 0, 0, 0, 0)
}

// console shows the terminal at /dev/console, when /dev is ours.
func (b *builder) console(mounts []mount) {
	for _, m := range mounts {
		if m.target == "/dev/console" {
			return
		}
	}
	const what = "mount /dev/console"
	place := b.target("/dev/console", false)
	b.attach(what, Saved(b.clone(what, Saved("terminal"), "", 0)), place)
}

// finish turns the process, which stands in its root and folder, into the
// program. With join it forks into a PID namespace of others as late as it
// can, when only what needs no privilege is left to do.
func (b *builder) finish(p spec.Process, s Surroundings, join bool) {
	b.call("set the umask", unix.SYS_UMASK, Num(umask(p)))
	b.stdio(p)
	b.closeOthers(0)
	for n := range s.LastCap + 1 {
		if p.Capabilities.Bounding&(1<<n) == 0 {
			b.call("drop capability "+itoa(n), unix.SYS_PRCTL, Num(unix.PR_CAPBSET_DROP), Num(n), Num(0), Num(0), Num(0))
		}
	}
	if !p.NoNewPrivs { // without it a filter needs CAP_SYS_ADMIN, gone below
		b.seccomp(p)
	}
	b.credentials(p)
	if p.NoNewPrivs {
		b.call("set no_new_privs", unix.SYS_PRCTL, Num(unix.PR_SET_NO_NEW_PRIVS), Num(1), Num(0), Num(0), Num(0))
	}
	if join {
		b.fork(0)
	}
	b.call("start a session", unix.SYS_SETSID)
	if p.Terminal {
		b.call("take the terminal", unix.SYS_IOCTL, Num(0), Num(unix.TIOCSCTTY), Num(0))
	}
	if p.NoNewPrivs {
		b.seccomp(p)
	}
	b.signals()
	b.execute(p)
}

// signals gives the program what every program expects: nothing ignored that
// the monitor ignores, nothing blocked.
func (b *builder) signals() {
	for _, n := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM} {
		b.call("reset "+unix.SignalName(n), unix.SYS_RT_SIGACTION, Num(int(n)), words(0, 0, 0, 0), Num(0), Num(8))
	}
	b.call("unblock signals", unix.SYS_RT_SIGPROCMASK, Num(unix.SIG_SETMASK), words(0), Num(0), Num(8))
}

// closeOthers closes what is not stdin, stdout or stderr: at once, and not only
// by the execve. A process that joins a PID namespace can be stopped there and,
// with CAP_SYS_PTRACE, be looked into: the host's /proc among its descriptors
// would be the way out.
func (b *builder) closeOthers(flags int) {
	b.call("close all other descriptors", unix.SYS_CLOSE_RANGE, Num(3), Num(uint64(0xffffffff)), Num(flags))
}

func umask(p spec.Process) uint32 {
	if p.Umask == 0 {
		return 0o022
	}
	return p.Umask
}

func (b *builder) stdio(p spec.Process) {
	for n, name := range []string{"stdin", "stdout", "stderr"} {
		from := File(name)
		if p.Terminal {
			from = Saved("terminal")
		}
		b.call("set "+name, unix.SYS_DUP3, from, Num(n), Num(0))
	}
}

func (b *builder) seccomp(p spec.Process) {
	if len(p.Seccomp) > 0 {
		b.call("install the seccomp filter", unix.SYS_SECCOMP, Num(unix.SECCOMP_SET_MODE_FILTER), Num(p.SeccompFlags), Filter(p.Seccomp))
	}
}

// credentials changes user, groups and capabilities. The capabilities have
// to survive the change of user, to be cut down after it.
func (b *builder) credentials(p spec.Process) {
	groups := make([]byte, 0, 4*len(p.User.Groups))
	for _, g := range p.User.Groups {
		groups = binary.NativeEndian.AppendUint32(groups, g)
	}
	b.call("keep capabilities", unix.SYS_PRCTL, Num(unix.PR_SET_KEEPCAPS), Num(1), Num(0), Num(0), Num(0))
	b.call("set supplementary groups", unix.SYS_SETGROUPS, Num(len(p.User.Groups)), Bytes(groups))
	gid, uid := Num(p.User.GID), Num(p.User.UID)
	b.call("set group "+itoa(int(p.User.GID)), unix.SYS_SETRESGID, gid, gid, gid)
	b.call("set user "+itoa(int(p.User.UID)), unix.SYS_SETRESUID, uid, uid, uid)
	c := p.Capabilities
	var sets []byte
	for _, shift := range []int{0, 32} {
		for _, set := range []uint64{c.Effective, c.Permitted, c.Inheritable} {
			sets = binary.NativeEndian.AppendUint32(sets, uint32(set>>shift))
		}
	}
	header := binary.NativeEndian.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	header = append(header, 0, 0, 0, 0)
	b.call("set capabilities", unix.SYS_CAPSET, Bytes(header), Bytes(sets))
	for n := range 64 {
		if c.Ambient&(1<<n) != 0 {
			b.call("raise ambient capability "+itoa(n), unix.SYS_PRCTL, Num(unix.PR_CAP_AMBIENT), Num(unix.PR_CAP_AMBIENT_RAISE), Num(n), Num(0), Num(0))
		}
	}
}

// execute tries the program in each folder of PATH, as execvp(3) does.
func (b *builder) execute(p spec.Process) {
	argv, envp := Vector(p.Args), Vector(p.Env)
	candidates := Candidates(p)
	for i, name := range candidates {
		op := b.call("execute "+p.Args[0], unix.SYS_EXECVE, Text(name), argv, envp)
		if i < len(candidates)-1 {
			op.tolerate(unix.ENOENT, unix.ENOTDIR, unix.EACCES)
		}
	}
}

// Candidates are the paths at which the program is looked for, in order.
func Candidates(p spec.Process) []string {
	if strings.Contains(p.Args[0], "/") {
		return p.Args[:1]
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range p.Env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			search = value
		}
	}
	var list []string
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "." // POSIX: an empty entry is the current folder
		}
		list = append(list, path.Join(dir, p.Args[0]))
	}
	return list
}

// Explain tells why a spawn failed.
func (p Program) Explain(r Result) error {
	if r.Failed == CloneFailed {
		return &Error{What: "make the process", Errno: r.Errno}
	}
	if r.Failed == Killed {
		return ErrKilled
	}
	if r.Failed < 0 || r.Failed >= len(p.Ops) {
		return nil
	}
	op := p.Ops[r.Failed]
	return &Error{What: op.What, Errno: r.Errno, Execute: op.Nr == unix.SYS_EXECVE}
}

// ErrKilled is the fate of a process that did not come to its program: somebody
// killed its group, the group had too little memory, or a step took too long.
var ErrKilled = errors.New("killed before its program was executed")

// Error is a step that failed in the new process.
type Error struct {
	What    string
	Errno   syscall.Errno
	Execute bool // it was the program itself that could not be executed
}

func (e *Error) Error() string {
	if e.Execute && e.Errno == unix.ENOENT {
		return e.What + ": executable file not found"
	}
	return e.What + ": " + e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// Is tells a program that cannot be executed from a step before it.
func (e *Error) Is(target error) bool { return target == spec.ErrExecute && e.Execute }
