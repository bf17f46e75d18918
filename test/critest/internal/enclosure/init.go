package enclosure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// initial is PID 1 of the new namespaces: it mounts what belongs to them, starts
// the third process and reaps whatever loses its parent.
func initial() (int, error) {
	if err := mountOwn(); err != nil {
		return 1, err
	}
	if err := moveToLeaf(); err != nil {
		return 1, err
	}
	if err := raiseLoopback(); err != nil {
		return 1, fmt.Errorf("raise lo: %w", err)
	}
	cmd := command(context.Background(), "inside")
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 1, fmt.Errorf("wait: %w", err)
		}
		if pid == cmd.Process.Pid {
			return status.ExitStatus(), nil // what still runs ends with us
		}
	}
}

// mountOwn replaces the mounts that show namespaces by ones that show the new
// ones. The old ones are taken away, not covered: a covered cgroup v1 tree
// would still be found in the mount table.
func mountOwn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	_, security := os.Stat("/sys/kernel/security/lsm")
	_, selinux := os.Stat("/sys/fs/selinux/enforce")
	for _, path := range []string{"/sys", "/proc", "/dev/mqueue"} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mounts := []struct{ kind, path string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"cgroup2", "/sys/fs/cgroup"}}
	if security == nil {
		mounts = append(mounts, struct{ kind, path string }{"securityfs", "/sys/kernel/security"})
	}
	if selinux == nil {
		mounts = append(mounts, struct{ kind, path string }{"selinuxfs", "/sys/fs/selinux"})
	}
	for _, m := range mounts {
		if err := unix.Mount(m.kind, m.path, m.kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
}

// moveToLeaf moves this process into a leaf, because a cgroup that has
// processes cannot hand controllers to its children. What the daemon enables
// from there on is its own matter.
func moveToLeaf() error {
	leaf := filepath.Join(CgroupRoot, "tests")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0)
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
