package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// The disks, in the order in which they are attached.
const (
	rootDisk = "/dev/vda"
	inDisk   = "/dev/vdb"
	outDisk  = "/dev/vdc"
	keptDisk = "/dev/vdd" // may be absent
)

type mount struct {
	kind, path, options string
	source              string // of those that have one
	may                 bool   // be absent from this kernel
}

// early is mounted in the initial file system and moves along.
var early = []mount{{kind: "devtmpfs", path: "/dev"}}

// late is what systemd would mount.
var late = []mount{
	{kind: "proc", path: "/proc"},
	{kind: "sysfs", path: "/sys"},
	{kind: "securityfs", path: "/sys/kernel/security", may: true},
	{kind: "cgroup2", path: "/sys/fs/cgroup", options: "nsdelegate,memory_recursiveprot"},
	{kind: "bpf", path: "/sys/fs/bpf"},
	{kind: "devpts", path: "/dev/pts", options: "gid=5,mode=620,ptmxmode=666"},
	{kind: "tmpfs", path: "/dev/shm", options: "mode=1777"},
	{kind: "mqueue", path: "/dev/mqueue"},
	{kind: "hugetlbfs", path: "/dev/hugepages", may: true},
	{kind: "tmpfs", path: "/run", options: "mode=755"},
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		// Some are directories of file systems that make them themselves.
		if err := os.MkdirAll(m.path, 0o755); err != nil && !m.may {
			return err
		}
		err := syscall.Mount(cmp.Or(m.source, m.kind), m.path, m.kind, 0, m.options)
		if m.may && (errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOENT)) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
}

// loadModules loads the files of a directory in the order of their names.
func loadModules(dir string) error {
	files, err := filepath.Glob(dir + "/*.ko") // sorted
	if err != nil {
		return err
	}
	parameters, _ := syscall.BytePtrFromString("")
	for _, file := range files {
		image, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		_, _, errno := syscall.Syscall(syscall.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&image[0])), uintptr(len(image)), uintptr(unsafe.Pointer(parameters)))
		if errno != 0 && errno != syscall.EEXIST {
			return fmt.Errorf("load %s: %w", file, errno)
		}
	}
	return nil
}

// changeRoot moves to the file system of a disk. The initial one cannot be
// unmounted; it stays below, and nobody sees it.
func changeRoot(disk string) error {
	const root = "/root"
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Mount(disk, root, "ext4", 0, "")
		if err == nil {
			break
		}
		if time.Now().After(end) || !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("mount %s: %w", disk, err)
		}
	}
	if err := syscall.Mount("/dev", root+"/dev", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /dev: %w", err)
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return syscall.Mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, "") // as systemd does
}

// settle does what remains: names, the loopback device, all controllers.
func settle() error {
	if err := syscall.Sethostname([]byte("node")); err != nil {
		return err
	}
	for link, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := raiseLoopback(); err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	all := "+" + strings.Join(strings.Fields(string(controllers)), " +")
	return os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte(all), 0)
}

func raiseLoopback() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
