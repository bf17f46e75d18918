package spawn

import (
	"encoding/binary"
	"fmt"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// builder appends operations to a program.
type builder struct {
	Program
	names  int // of results that need a name of their own
	places map[string]string
}

// newBuilder has room for an ordinary container's program.
func newBuilder() *builder {
	return &builder{Program: Program{Ops: make([]Op, 0, 256)}}
}

func (b *builder) call(what string, nr uintptr, args ...Arg) *Op {
	b.Ops = append(b.Ops, Op{What: what, Nr: nr, Args: args})
	return &b.Ops[len(b.Ops)-1]
}

func (o *Op) save(name string) *Op            { o.Save = name; return o }
func (o *Op) tolerate(e ...syscall.Errno) *Op { o.Tolerate = e; return o }

func (b *builder) fresh(kind string) string {
	b.names++
	return fmt.Sprintf("%s%d", kind, b.names)
}

// words makes a structure of 64 bit numbers.
func words(v ...uint64) Arg {
	var data []byte
	for _, n := range v {
		data = binary.NativeEndian.AppendUint64(data, n)
	}
	return Bytes(data)
}

// openHow is struct open_how of openat2(2).
func openHow(flags, mode, resolve uint64) Arg { return words(flags, mode, resolve) }

const howSize = 24

// inRoot confines a look-up to the root file system and refuses the links of
// procfs, which lead out of it (CVE-2024-21626).
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// rootfs is the name of the file that is the container's root.
const rootfs = "rootfs"

// open looks a path up below the root.
func (b *builder) open(what, name string, flags uint64) *Op {
	return b.call(what, unix.SYS_OPENAT2, File(rootfs), Text(name), openHow(flags|unix.O_CLOEXEC, 0, inRoot), Num(howSize))
}

// target opens the place of a mount, which is made when missing: a folder, or
// an empty file. Each part of the path is looked up again from the root after
// it was made, so that a link put in its way is followed inside or not at all
// (CVE-2021-30465).
func (b *builder) target(name string, folder bool) string {
	name = path.Clean(name)
	what := "mount point " + name
	if elsewhere, ok := b.places[name]; ok {
		name = elsewhere
	}
	saved := b.fresh("target")
	b.open(what, name, unix.O_PATH).save(saved).tolerate(unix.ENOENT)
	look := len(b.Ops) - 1

	parent, parts := File(rootfs), strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range parts {
		last := i == len(parts)-1
		if last && !folder {
			b.call(what, unix.SYS_MKNODAT, parent, Text(part), Num(unix.S_IFREG|0o644), Num(0)).tolerate(unix.EEXIST)
			b.open(what, name, unix.O_PATH).save(saved)
			break
		}
		b.call(what, unix.SYS_MKDIRAT, parent, Text(part), Num(0o755)).tolerate(unix.EEXIST, unix.EROFS)
		here := saved
		if !last {
			here = b.fresh("dir")
		}
		b.open(what, "/"+strings.Join(parts[:i+1], "/"), unix.O_PATH|unix.O_DIRECTORY).save(here)
		parent = Saved(here)
	}
	b.Ops[look].SkipOK = len(b.Ops) - look - 1
	return saved
}

// attach puts a detached mount onto an open place.
func (b *builder) attach(what string, mount Arg, place string) *Op {
	return b.call(what, unix.SYS_MOVE_MOUNT, mount, Text(""), Saved(place), Text(""),
		Num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// filesystem makes a detached mount of a new file system, for those whose
// content depends on the namespaces of the process that makes them.
func (b *builder) filesystem(kind string, attributes uint64, options ...string) string {
	what := "make " + kind
	fs, mount := b.fresh("fs"), b.fresh(kind)
	b.call(what, unix.SYS_FSOPEN, Text(kind), Num(unix.FSOPEN_CLOEXEC)).save(fs)
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		b.call(what+" with "+option, unix.SYS_FSCONFIG, Saved(fs), Num(unix.FSCONFIG_SET_STRING), Text(key), Text(value), Num(0))
	}
	b.call(what, unix.SYS_FSCONFIG, Saved(fs), Num(unix.FSCONFIG_CMD_CREATE), Num(0), Num(0), Num(0))
	b.call(what, unix.SYS_FSMOUNT, Saved(fs), Num(unix.FSMOUNT_CLOEXEC), Num(attributes)).save(mount)
	return mount
}

// setAttributes changes the attributes of a mount, and of those below it when
// flags has AT_RECURSIVE.
func (b *builder) setAttributes(what string, mount Arg, set uint64, flags int) {
	b.call(what, unix.SYS_MOUNT_SETATTR, mount, Text(""), Num(unix.AT_EMPTY_PATH|flags), words(set, 0, 0, 0), Num(32))
}

// clone copies a mount that is attached in this mount namespace.
func (b *builder) clone(what string, from Arg, name string, flags int) string {
	mount := b.fresh("clone")
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	b.call(what, unix.SYS_OPEN_TREE, from, Text(name), Num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)).save(mount)
	return mount
}
