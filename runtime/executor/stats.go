package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/internal/disk"
	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spec"
)

// Stats reads what a control group and all below it use; shares are those it
// was given, 0 when nobody knows.
func (e *Executor) Stats(group string, shares int64) (spec.Stats, error) {
	g, err := e.loadGroup(group)
	if err != nil {
		return spec.Stats{}, unknownIfGone(err)
	}
	s, err := g.Stats(uint64(max(shares, 0)))
	if err != nil {
		return spec.Stats{}, unknownIfGone(err)
	}
	for i := range s.IO {
		s.IO[i].Name = e.deviceName(s.IO[i].Major, s.IO[i].Minor)
	}
	return s, nil
}

// CPUTime is the processor time that a control group used, in nanoseconds.
func (e *Executor) CPUTime(group string) (uint64, error) {
	g, err := e.loadGroup(group)
	if err != nil {
		return 0, unknownIfGone(err)
	}
	n, err := g.CPUTime()
	return n, unknownIfGone(err)
}

func unknownIfGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return errors.Join(ErrUnknown, err)
	}
	return err
}

// maxDescriptors is how many descriptors of a container are looked at, one by
// one, for sockets.
const maxDescriptors = 4096

// Inside looks at each process of a started container.
func (e *Executor) Inside(id string) (spec.Inside, error) {
	var in spec.Inside
	r, err := e.running(id)
	if err != nil {
		return in, err
	}
	group, err := e.loadGroup(r.cgroup)
	if err != nil {
		return in, unknownIfGone(err)
	}
	if in.Threads, err = group.Threads(); err != nil {
		return in, err
	}
	pids, err := group.Procs()
	if err != nil {
		return in, err
	}
	sockets := uint64(0)
	for _, pid := range pids {
		err := descriptors(pid, &in.OpenFiles, &sockets)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return in, err
		}
	}
	if in.OpenFiles <= maxDescriptors {
		in.Sockets = &sockets
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(r.pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return in, fmt.Errorf("limits of process %d: %w", r.pid, unknownIfGone(err))
	}
	if !r.alive() { // else the number might be another's by now
		return in, fmt.Errorf("container %s has ended: %w", id, ErrUnknown)
	}
	in.OpenFilesLimit = limit.Cur
	return in, nil
}

// descriptors counts those of a process, which may end meanwhile.
func descriptors(pid int, all, sockets *uint64) error {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	// The kernel tells their number since Linux 6.2. It is one higher while
	// the process waits for a connection, whose descriptor is reserved.
	if number := uint64(info.Size()); *all+number > maxDescriptors {
		*all += number
		return nil
	}
	names, err := dir.Readdirnames(maxDescriptors)
	if err != nil && err != io.EOF {
		return err
	}
	*all += uint64(len(names))
	var target [8]byte
	for _, name := range names {
		n, err := unix.Readlinkat(number(dir), name, target[:])
		if err == nil && strings.HasPrefix(string(target[:n]), "socket:") {
			*sockets++
		}
	}
	return nil
}

// pace of counting writable layers: a tenth of the time.
var pace = disk.Pace{Batch: 128, Rest: 9}

// Writable counts what the writable layer of a root file system takes, which
// takes long on purpose. An error may come with what was counted by then.
func (e *Executor) Writable(ctx context.Context, r spec.Rootfs) (spec.DiskUsage, error) {
	base, err := os.OpenFile(r.Writable, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return spec.DiskUsage{}, err
	}
	defer base.Close()
	upper, err := (&mount.Tree{File: base}).Open("upper", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return spec.DiskUsage{}, err
	}
	defer upper.Close()
	usage, err := disk.Count(ctx, upper, pace)
	if err != nil {
		err = fmt.Errorf("count the writable layer %s: %w", r.Writable, err)
	}
	return usage, err
}

// FileSystem tells the size of the file system that a path of ours is on.
func (e *Executor) FileSystem(name string) (spec.FileSystem, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(name, &fs); err != nil {
		return spec.FileSystem{}, fmt.Errorf("file system of %s: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return spec.FileSystem{}, fmt.Errorf("file system of %s: %w", name, err)
	}
	block := uint64(fs.Frsize)
	out := spec.FileSystem{
		Bytes: fs.Blocks * block, FreeBytes: fs.Bavail * block,
		Inodes: fs.Files, FreeInodes: fs.Ffree,
	}
	major, minor := unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))
	out.Device = fmt.Sprintf("%d:%d", major, minor)
	if found := e.deviceName(major, minor); found != "" {
		out.Device = path.Join("/dev", found)
	}
	return out, nil
}

// deviceName is the name of a block device below /dev; empty for a number
// that no device has, as file systems of several devices make them up.
func (e *Executor) deviceName(major, minor uint32) string {
	key := uint64(major)<<32 | uint64(minor)
	if found, ok := e.devices.Load(key); ok {
		return found.(string)
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/uevent", major, minor))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if found, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok {
			e.devices.Store(key, found)
			return found
		}
	}
	return ""
}
