package spawn

import (
	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// nobody is the id under which the reaping init runs. That a container may run
// under it as well gives the container no power over the init: see package
// boot for signals, and the executor's sealed copy for tracing.
const nobody = 65534

// Nobody is the id of the init in a user namespace: one that is mapped there.
func Nobody(ids *spec.IDMapping) uint32 {
	if ids == nil {
		return nobody
	}
	return min(nobody, ids.Length-1)
}

// Init makes the program of the small init, the first process of a PID
// namespace that a whole pod shares. It sees an empty read-only root and has
// no privilege at all.
//
// It expects the files hostproc, user with Surroundings.User, and exe, the
// sealed copy of our binary, and stdin, stdout, stderr: an executable that someone inside could open for
// writing would be ours on the host as well (CVE-2019-5736).
//
// The label is that of the pod's files. The init itself keeps the monitor's:
// what policies let containers execute is no file in memory.
func Init(args, env []string, oomScoreAdj *int, label string, user uint32, s Surroundings) Program {
	b := newBuilder()
	b.hostLimits(spec.Process{OOMScoreAdj: oomScoreAdj})
	b.Files = []string{"hostproc", "exe", "stdin", "stdout", "stderr"}
	if s.User {
		b.Files = append(b.Files, "user")
		b.setns("user", unix.CLONE_NEWUSER)
		b.becomeRoot()
		b.call("new mount namespace", unix.SYS_UNSHARE, Num(unix.CLONE_NEWNS))
		b.fork(unix.CLONE_NEWPID)
	} else {
		b.Flags = unix.CLONE_NEWNS | unix.CLONE_NEWPID
	}
	root := b.filesystem("tmpfs", fixed|unix.MOUNT_ATTR_RDONLY, labelled(label, "nr_inodes=2", "mode=0755")...)
	b.call("attach the root file system", unix.SYS_MOVE_MOUNT, Saved(root), Text(""), Num(unix.AT_FDCWD), Text(seedRoot), Num(unix.MOVE_MOUNT_F_EMPTY_PATH))
	b.call("enter the root file system", unix.SYS_FCHDIR, Saved(root))
	b.call("pivot to the root file system", unix.SYS_PIVOT_ROOT, Text("."), Text("."))
	b.call("leave the old root", unix.SYS_UMOUNT2, Text("."), Num(unix.MNT_DETACH))
	// Nothing of the monitor's goes along, not even its log.
	b.stdio(spec.Process{})
	// At the execve, which needs one. Nobody else is in the namespace yet.
	b.closeOthers(unix.CLOSE_RANGE_CLOEXEC)
	for n := range s.LastCap + 1 {
		b.call("drop capability "+itoa(n), unix.SYS_PRCTL, Num(unix.PR_CAPBSET_DROP), Num(n), Num(0), Num(0), Num(0))
	}
	b.credentials(spec.Process{User: spec.User{UID: user, GID: user}})
	b.call("set no_new_privs", unix.SYS_PRCTL, Num(unix.PR_SET_NO_NEW_PRIVS), Num(1), Num(0), Num(0), Num(0))
	b.call("start a session", unix.SYS_SETSID)
	b.signals()
	b.call("execute the init", unix.SYS_EXECVEAT, File("exe"), Text(""), Vector(args), Vector(env), Num(unix.AT_EMPTY_PATH))
	return b.Program
}
