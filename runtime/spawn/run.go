package spawn

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Result is what became of a spawn.
type Result struct {
	PID    int // in our PID namespace; 0 when it failed
	Failed int // index of the operation that failed, -1 for none
	Errno  syscall.Errno
	At     time.Time // when the program was executed
}

// CloneFailed is Result.Failed when no process could be made at all.
const CloneFailed = -2

// Killed is Result.Failed when the process was killed before its execve. Run
// does not tell it, for the kernel does not: see Executed.
const Killed = -4

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd uint64
	_, _         uint64 // child_tid, parent_tid
	exitSignal   uint64
	_, _, _      uint64 // stack, stack_size, tls
	_, _         uint64 // set_tid, set_tid_size
	cgroup       uint64
}

// Spawn is one attempt to run an image.
type Spawn struct {
	region []byte
	pidfd  int32 // of the first process, written by the kernel; -1 for none

	mu   sync.Mutex // guards done
	done bool       // the processes may have been reaped: no signal to them
}

// NewSpawn lays the image out with these descriptors, ready to Run once.
func NewSpawn(im *Image, files []int) (*Spawn, error) {
	// Shared, so that reports arrive from a child with a copy of our memory.
	region, err := unix.Mmap(-1, 0, len(im.Blob), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	s := &Spawn{region: region, pidfd: -1}
	copy(region, im.Blob)
	base := uint64(uintptr(unsafe.Pointer(&region[0])))
	for _, at := range im.Pointers {
		if int(at)+word > len(region) {
			s.Close()
			return nil, unix.EBADMSG
		}
		offset := binary.NativeEndian.Uint64(region[at:])
		binary.NativeEndian.PutUint64(region[at:], base+offset)
	}
	for _, f := range im.Files {
		if int(f.Offset)+word > len(region) || int(f.Index) >= len(files) {
			s.Close()
			return nil, unix.EBADMSG
		}
		binary.NativeEndian.PutUint64(region[f.Offset:], uint64(files[f.Index]))
	}
	return s, nil
}

// Close frees the memory.
func (s *Spawn) Close() { unix.Munmap(s.region) }

func (s *Spawn) header(n int) uint64 { return binary.NativeEndian.Uint64(s.region[n*word:]) }

// Run clones the process, in the group of cgroup when that is not negative,
// and returns when it has executed its program or failed.
// The caller holds the operating system's thread.
func (s *Spawn) Run(im *Image, cgroup int) Result {
	args := cloneArgs{
		// Without CLONE_VFORK a change of oom_score_adj in the child would be
		// ours too (proc(5): processes sharing memory share it).
		flags:      im.Flags | unix.CLONE_VFORK | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PIDFD,
		pidfd:      uint64(uintptr(unsafe.Pointer(&s.pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if !im.Copy {
		args.flags |= unix.CLONE_VM
	}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	pid := blocked(&args, (*byte)(unsafe.Pointer(&s.region[0])))
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	if pid < 0 {
		return Result{Failed: CloneFailed, Errno: syscall.Errno(-pid)}
	}
	result := Result{PID: pid, Failed: -1, At: time.Now()}
	if failed := s.header(0); failed != 0 {
		result.Failed, result.Errno = int(failed)-1, syscall.Errno(s.header(1))
	}
	if forked := int(s.header(2)); forked != 0 {
		// The first process only made the second one. Had it been killed
		// before the execve of that, the second could still run our list.
		if !reap(pid).Exited() {
			unix.Kill(forked, unix.SIGKILL)
			unix.Waitid(unix.P_PID, forked, nil, unix.WEXITED|unix.WNOWAIT, nil)
		}
		result.PID = forked
	}
	if result.Failed >= 0 {
		reap(result.PID)
		result.PID = 0
	}
	unix.Close(int(s.pidfd))
	return result
}

// Executed tells whether a process that Run has named came as far as its
// execve. One that was killed before, with its control group or by Abandon, has
// not run its program, but a clone that waits for an execve returns in silence:
// when the memory is let go, a while before anyone can wait for the process.
// proc is the host's /proc. The process must not have been reaped.
func Executed(proc, pid int) bool {
	const (
		exiting       = 0x4  // PF_EXITING
		neverExecuted = 0x40 // PF_FORKNOEXEC
	)
	// An execve lets the memory go as well, and clears the flag right after.
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(20 * time.Microsecond) {
		flags, err := taskFlags(proc, pid)
		if err != nil || flags&neverExecuted == 0 {
			return true
		}
		if flags&exiting != 0 {
			return false
		}
	}
	return true
}

// taskFlags reads the ninth field of /proc/PID/stat (proc_pid_stat(5)), which
// stays when the process has ended.
func taskFlags(proc, pid int) (uint64, error) {
	fd, err := unix.Openat(proc, strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 512)
	n, err := unix.Read(fd, buffer)
	if err != nil {
		return 0, err
	}
	// The name may hold anything, also a parenthesis.
	text := string(buffer[:n])
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 7 {
		return 0, unix.EBADMSG
	}
	return strconv.ParseUint(fields[6], 10, 64)
}

// Abandon kills a spawn that hangs, for instance in a mount of a dead server.
// It may be called while Run runs.
func (s *Spawn) Abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	if forked := int(s.header(2)); forked != 0 {
		unix.Kill(forked, unix.SIGKILL) // still our child: Run has not reaped it
		return
	}
	if pidfd := atomic.LoadInt32(&s.pidfd); pidfd >= 0 {
		unix.PidfdSendSignal(int(pidfd), unix.SIGKILL, nil, 0)
	}
}

// blocked clones with all signals blocked: a signal must not run a handler of
// ours in the child, on our stack.
func blocked(args *cloneArgs, region *byte) int {
	all, old := ^uint64(0), uint64(0)
	sigprocmask(&all, &old)
	pid := cloneInSyscall(args, unsafe.Sizeof(*args), region)
	sigprocmask(&old, nil)
	return pid
}

func sigprocmask(set, old *uint64) {
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}

// reap collects an ended child of ours.
func reap(pid int) (status unix.WaitStatus) {
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			return status
		}
	}
}

// cloneInSyscall tells the scheduler that this thread is in the kernel: the
// child may stay there for long, and a garbage collection must not wait.
//
//go:nosplit
func cloneInSyscall(args *cloneArgs, size uintptr, head *byte) int {
	entersyscall()
	pid := clone(args, size, head)
	exitsyscall()
	return pid
}

//go:noescape
func clone(args *cloneArgs, size uintptr, head *byte) (pid int)

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()
