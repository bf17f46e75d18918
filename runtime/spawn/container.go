package spawn

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// Surroundings is what a program depends on besides the spec: which
// namespaces are joined and what the descriptors show.
type Surroundings struct {
	HostNetwork, HostIPC, HostUTS bool
	// User says that the file "user" is a user namespace to join.
	User bool
	// JoinPID says that the file "pid" is a PID namespace to join and "proc"
	// a mount that shows it.
	JoinPID bool
	// Copy: see Program.
	Copy bool
	// Folders tells for each mount of the container whether it is a folder.
	Folders []bool
	// Places are mount points that have to be made somewhere else than at
	// their names: dangling links in the image lead there.
	Places map[string]string
	// LastCap is the highest capability of the kernel.
	LastCap int
}

// Container makes the program of a container's first process.
//
// It expects these files: net, ipc, uts, user, pid as far as they are joined;
// hostproc, the host's /proc; rootfs, dev and shm, detached mounts; proc, one
// more, with JoinPID; mount0, mount1... for the container's mounts; and either
// console, a socket for the terminal, or stdin, stdout and stderr.
func Container(c spec.Container, s Surroundings) Program {
	b := newBuilder()
	b.Copy, b.places = s.Copy, s.Places
	b.hostLimits(c.Process)
	b.joinSandbox(s)

	b.call("attach the root file system", unix.SYS_MOVE_MOUNT, File(rootfs), Text(""), Num(unix.AT_FDCWD), Text(seedRoot),
		Num(unix.MOVE_MOUNT_F_EMPTY_PATH))
	mounts := mountList(c, s)
	for _, m := range mounts {
		m.make(b)
	}
	if c.Process.Terminal {
		b.terminal(File(rootfs), c.Process)
		b.console(mounts)
	}
	b.target(c.Process.Cwd, true)
	if !c.Privileged {
		b.mask(c)
		b.readonly(c.ReadonlyPaths)
	}
	if c.ReadonlyRootfs { // last: mount points had to be made
		b.setAttributes("make the root file system read-only", File(rootfs), unix.MOUNT_ATTR_RDONLY, 0)
	}
	b.enterRoot()
	b.enterFolder(c.Process.Cwd)
	b.finish(c.Process, s, s.JoinPID)
	return b.program(c, s)
}

// program closes the list with the names of the files.
func (b *builder) program(c spec.Container, s Surroundings) Program {
	b.Files = append(b.Files, "hostproc")
	for _, joined := range []struct {
		name string
		is   bool
	}{{"user", s.User}, {"net", !s.HostNetwork}, {"ipc", !s.HostIPC}, {"uts", !s.HostUTS}, {"pid", s.JoinPID}, {"proc", s.JoinPID}} {
		if joined.is {
			b.Files = append(b.Files, joined.name)
		}
	}
	b.Files = append(b.Files, rootfs, "dev", "shm")
	for i := range c.Mounts {
		b.Files = append(b.Files, mountFile(i))
	}
	b.Files = append(b.Files, stdioFiles(c.Process)...)
	return b.Program
}

// hostLimits comes first: limits need CAP_SYS_RESOURCE over the host, which is
// gone in a user namespace.
func (b *builder) hostLimits(p spec.Process) {
	b.confine(p)
	for _, r := range p.Rlimits {
		b.call("set a resource limit", unix.SYS_PRLIMIT64, Num(0), Num(r.Resource), words(r.Soft, r.Hard), Num(0))
	}
	if p.OOMScoreAdj != nil {
		b.oomScoreAdj(*p.OOMScoreAdj)
	}
	// A session keyring of its own: the monitor's would be readable inside.
	b.call("join a new session keyring", unix.SYS_KEYCTL, Num(unix.KEYCTL_JOIN_SESSION_KEYRING), Num(0)).
		tolerate(unix.ENOSYS, unix.EPERM, unix.EDQUOT)
}

func (b *builder) oomScoreAdj(score int) {
	text := itoa(score)
	b.setOwn("oom_score_adj", text, "set oom_score_adj "+text)
}

// setOwn writes a file of this process in the host's /proc, which is known to
// be the kernel's. In the container's, something could lie on top of the file
// and the write go nowhere (CVE-2019-16884, CVE-2025-52881).
func (b *builder) setOwn(file, text, what string) {
	fd := b.fresh("own")
	b.call("open "+file, unix.SYS_OPENAT, File("hostproc"), Text("self/"+file), Num(unix.O_WRONLY|unix.O_CLOEXEC), Num(0)).save(fd)
	b.call(what, unix.SYS_WRITE, Saved(fd), Text(text), Num(len(text)))
}

// confine says under which profile and label the program shall run. Both hold
// from the execve on, through all that happens before it: so it can come
// first, while nothing of the image is near, and before no_new_privs, which
// would forbid it. A profile or label that the kernel does not have is an
// error here and ends the start.
func (b *builder) confine(p spec.Process) {
	if p.AppArmor != "" {
		b.setOwn("attr/apparmor/exec", "exec "+p.AppArmor, "set the AppArmor profile "+p.AppArmor)
	}
	if p.SELinux != "" {
		b.setOwn("attr/exec", p.SELinux, "set the SELinux label "+p.SELinux)
		// Of the session keyring, which is made next.
		b.setOwn("attr/keycreate", p.SELinux, "set the SELinux label "+p.SELinux+" of keys")
	}
}

// joinSandbox enters the pod's namespaces and makes the container's own.
func (b *builder) joinSandbox(s Surroundings) {
	own := uint64(unix.CLONE_NEWNS)
	if !s.JoinPID {
		own |= unix.CLONE_NEWPID
	}
	if s.User {
		// First the user namespace, so that what is made after it belongs
		// to it; then its root, for our own id has no place in it.
		b.setns("user", unix.CLONE_NEWUSER)
		b.becomeRoot()
	} else {
		b.Flags = own
	}
	if !s.HostNetwork {
		b.setns("net", unix.CLONE_NEWNET)
	}
	if !s.HostIPC {
		b.setns("ipc", unix.CLONE_NEWIPC)
	}
	if !s.HostUTS {
		b.setns("uts", unix.CLONE_NEWUTS)
	}
	if s.JoinPID {
		b.setns("pid", unix.CLONE_NEWPID) // of the process forked at the end
	}
	if s.User {
		b.call("new mount namespace", unix.SYS_UNSHARE, Num(unix.CLONE_NEWNS))
		if !s.JoinPID {
			b.fork(unix.CLONE_NEWPID)
		}
	}
	// Not a flag of the clone: the kernel would take the cgroup of the
	// monitor for the root of the new namespace.
	b.call("new cgroup namespace", unix.SYS_UNSHARE, Num(unix.CLONE_NEWCGROUP))
}

func (b *builder) setns(name string, kind int) {
	b.call("join the "+name+" namespace", unix.SYS_SETNS, File(name), Num(kind))
}

func (b *builder) becomeRoot() {
	b.call("become root of the user namespace", unix.SYS_SETRESGID, Num(0), Num(0), Num(0))
	b.call("become root of the user namespace", unix.SYS_SETRESUID, Num(0), Num(0), Num(0))
}

// fork goes on in a new process, a child of the monitor as well. The kernel
// writes its pid down before it runs: the first process may be killed while it
// waits for the second.
func (b *builder) fork(namespaces int) {
	b.call("fork", unix.SYS_CLONE, Num(unix.CLONE_PARENT|unix.CLONE_VM|unix.CLONE_VFORK|unix.CLONE_PARENT_SETTID|namespaces),
		Num(0), forked(), Num(0), Num(0)).Fork = true
}

// DefaultTargets are the places of the default mounts in an image; the others
// lie below mounts of ours.
var DefaultTargets = []string{"/proc", "/dev", "/sys"}

// mount is one entry of the mount table to be.
type mount struct {
	target string
	make   func(*builder)
}

// terminals is the group that may write to everybody's terminal, tty.
const terminals = 5

const fixed = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// mountList is the default mounts and the container's, parents first. One of
// the container's replaces a default one at the same place; one at /dev also
// those below it, which would otherwise cover the host's devices.
func mountList(c spec.Container, s Surroundings) []mount {
	system := uint64(fixed | unix.MOUNT_ATTR_RDONLY)
	if c.Privileged {
		system = fixed
	}
	procfs := mount{"/proc", func(b *builder) { b.mountNew("/proc", "proc", fixed) }}
	if s.JoinPID {
		procfs.make = func(b *builder) { b.mountFile("/proc", "proc", true) }
	}
	list := []mount{
		procfs,
		{"/dev", func(b *builder) { b.mountFile("/dev", "dev", true) }},
		{"/dev/pts", func(b *builder) {
			options := []string{"ptmxmode=0666", "mode=0620"}
			if ids := c.Rootfs.IDs; ids == nil || ids.Length > terminals {
				options = append(options, "gid="+itoa(terminals))
			} // else terminals have the group of who opens them: there is no other
			b.mountNew("/dev/pts", "devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, labelled(c.Rootfs.Label, options...)...)
		}},
		{"/dev/mqueue", func(b *builder) { b.queues(c.Rootfs.Label) }},
		{"/dev/shm", func(b *builder) { b.mountFile("/dev/shm", "shm", true) }},
		{"/sys", func(b *builder) { b.mountNew("/sys", "sysfs", system) }},
		{"/sys/fs/cgroup", func(b *builder) { b.mountNew("/sys/fs/cgroup", "cgroup2", system) }},
	}
	own := map[string]bool{}
	for _, m := range c.Mounts {
		own[path.Clean(m.Target)] = true
	}
	list = slices.DeleteFunc(list, func(m mount) bool {
		return own[m.target] || own["/dev"] && strings.HasPrefix(m.target, "/dev/")
	})
	for i, m := range c.Mounts {
		target := path.Clean(m.Target)
		list = append(list, mount{target, func(b *builder) { b.mountFile(target, mountFile(i), s.Folders[i]) }})
	}
	slices.SortStableFunc(list, func(a, b mount) int {
		return strings.Count(a.target, "/") - strings.Count(b.target, "/")
	})
	return list
}

// labelled adds the SELinux label of a file system's files to its options.
func labelled(label string, options ...string) []string {
	if label != "" {
		options = append(options, "context="+label)
	}
	return options
}

// queues mounts the message queues of the pod. All mounts are one file system,
// whose label for new files a single container must not choose; only its root
// gets one.
func (b *builder) queues(label string) {
	const target = "/dev/mqueue"
	place := b.target(target, true)
	mount := b.filesystem("mqueue", fixed)
	if label != "" {
		const what = "label " + target
		root := b.fresh("dir")
		b.call(what, unix.SYS_OPENAT2, Saved(mount), Text("."), openHow(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, 0), Num(howSize)).save(root)
		b.call(what, unix.SYS_FSETXATTR, Saved(root), Text("security.selinux"), Text(label), Num(len(label)+1), Num(0))
	}
	b.attach("mount "+target, Saved(mount), place)
}

func mountFile(i int) string { return "mount" + itoa(i) }

// mountFile attaches one of the program's files.
func (b *builder) mountFile(target, file string, folder bool) {
	place := b.target(target, folder)
	b.attach("mount "+target, File(file), place)
}

// mountNew makes a file system and attaches it.
func (b *builder) mountNew(target, kind string, attributes uint64, options ...string) {
	place := b.target(target, true)
	b.attach("mount "+target, Saved(b.filesystem(kind, attributes, options...)), place)
}

// mask hides paths: a file behind the null device, a folder behind an empty
// read-only one. Both are ours, whatever the image holds (CVE-2025-31133).
func (b *builder) mask(c spec.Container) {
	if len(c.MaskedPaths) == 0 {
		return
	}
	// A mount can be cloned only while it is attached in our namespace; the
	// old root is a place that goes away.
	empty := b.filesystem("tmpfs", fixed|unix.MOUNT_ATTR_RDONLY, labelled(c.Rootfs.Label, "nr_inodes=2", "mode=0755")...)
	b.call("attach the empty folder", unix.SYS_MOVE_MOUNT, Saved(empty), Text(""), Num(unix.AT_FDCWD), Text(seedSpare), Num(unix.MOVE_MOUNT_F_EMPTY_PATH))
	for _, name := range c.MaskedPaths {
		b.maskOne(name, empty)
	}
}

// maskOne finds out what the path is by trying, and skips one that is not
// there. A link is followed: what it leads to is masked. One that leads through
// a magic link of procfs is an error (ELOOP), for the program could follow it.
func (b *builder) maskOne(name, empty string) {
	what := "mask " + name
	place := b.fresh("masked")

	b.open(what, name, unix.O_PATH|unix.O_DIRECTORY).save(place).tolerate(unix.ENOTDIR, unix.ENOENT)
	asFolder := len(b.Ops) - 1
	b.attach(what, Saved(b.clone(what, Saved(empty), "", 0)), place)
	folderEnd := len(b.Ops)

	b.open(what, name, unix.O_PATH).save(place).tolerate(unix.ENOTDIR, unix.ENOENT)
	asFile := len(b.Ops) - 1
	b.attach(what, Saved(b.clone(what, File("dev"), "null", 0)), place)
	end := len(b.Ops)

	b.Ops[asFolder].SkipTolerated = folderEnd - asFolder - 1
	b.Ops[folderEnd-1].SkipOK = end - folderEnd
	b.Ops[asFile].SkipTolerated = end - asFile - 1
}

// readonly puts a read-only view of a path over itself.
func (b *builder) readonly(paths []string) {
	for _, name := range paths {
		what := "make " + name + " read-only"
		place := b.fresh("readonly")
		b.open(what, name, unix.O_PATH).save(place).tolerate(unix.ENOENT, unix.ENOTDIR)
		look := len(b.Ops) - 1
		view := b.clone(what, Saved(place), "", unix.AT_RECURSIVE)
		b.setAttributes(what, Saved(view), unix.MOUNT_ATTR_RDONLY, unix.AT_RECURSIVE)
		b.attach(what, Saved(view), place)
		b.Ops[look].SkipTolerated = len(b.Ops) - look - 1
	}
}

// enterRoot makes the root file system the root of the namespace and lets
// everything else go.
func (b *builder) enterRoot() {
	b.call("enter the root file system", unix.SYS_FCHDIR, File(rootfs))
	b.call("pivot to the root file system", unix.SYS_PIVOT_ROOT, Text("."), Text("."))
	b.call("leave the old root", unix.SYS_UMOUNT2, Text("."), Num(unix.MNT_DETACH))
}

// enterFolder changes to a working folder chosen by an image, which must not
// be a descriptor of ours in /proc (CVE-2024-21626).
func (b *builder) enterFolder(name string) {
	what := "working directory " + name
	b.call(what, unix.SYS_OPENAT2, Num(unix.AT_FDCWD), Text(name),
		openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS), Num(howSize)).save("cwd")
	b.call(what, unix.SYS_FCHDIR, Saved("cwd"))
}
