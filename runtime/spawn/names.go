package spawn

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// callNames are the system calls that programs use.
var callNames = map[uintptr]string{
	unix.SYS_SETNS: "setns", unix.SYS_UNSHARE: "unshare", unix.SYS_CLONE: "clone",
	unix.SYS_FSOPEN: "fsopen", unix.SYS_FSCONFIG: "fsconfig", unix.SYS_FSMOUNT: "fsmount",
	unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_OPEN_TREE: "open_tree",
	unix.SYS_MOUNT_SETATTR: "mount_setattr", unix.SYS_OPENAT2: "openat2",
	unix.SYS_OPENAT: "openat", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_MKNODAT: "mknodat",
	unix.SYS_WRITE: "write", unix.SYS_CLOSE: "close", unix.SYS_CLOSE_RANGE: "close_range",
	unix.SYS_FCHDIR: "fchdir", unix.SYS_CHDIR: "chdir", unix.SYS_PIVOT_ROOT: "pivot_root",
	unix.SYS_UMOUNT2: "umount2", unix.SYS_UMASK: "umask", unix.SYS_PRLIMIT64: "prlimit64",
	unix.SYS_DUP3: "dup3", unix.SYS_SETSID: "setsid", unix.SYS_IOCTL: "ioctl",
	unix.SYS_SENDMSG: "sendmsg", unix.SYS_KEYCTL: "keyctl", unix.SYS_PRCTL: "prctl",
	unix.SYS_SETGROUPS: "setgroups", unix.SYS_SETRESGID: "setresgid",
	unix.SYS_SETRESUID: "setresuid", unix.SYS_CAPSET: "capset", unix.SYS_SECCOMP: "seccomp",
	unix.SYS_RT_SIGPROCMASK: "rt_sigprocmask", unix.SYS_RT_SIGACTION: "rt_sigaction", unix.SYS_EXECVE: "execve",
	unix.SYS_EXECVEAT: "execveat", unix.SYS_FCHOWN: "fchown", unix.SYS_EXIT_GROUP: "exit_group", unix.SYS_FSETXATTR: "fsetxattr",
}

func callName(nr uintptr) string {
	if name, ok := callNames[nr]; ok {
		return name
	}
	return fmt.Sprintf("syscall_%d", nr)
}

func errnoName(e syscall.Errno) string { return unix.ErrnoName(e) }

func flagNames(flags uint64) string {
	var names []string
	for _, f := range []struct {
		bit  uint64
		name string
	}{
		{unix.CLONE_NEWUSER, "user"}, {unix.CLONE_NEWNS, "mount"}, {unix.CLONE_NEWPID, "pid"},
		{unix.CLONE_NEWNET, "net"}, {unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWUTS, "uts"},
		{unix.CLONE_NEWCGROUP, "cgroup"},
	} {
		if flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, "|")
}
