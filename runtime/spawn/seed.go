package spawn

import (
	"golang.org/x/sys/unix"
)

// Places in the seed: where a root file system is attached, and a spare one.
const (
	seedRoot  = "/root"
	seedSpare = "/spare"
)

// EnterSeed moves this thread into a new mount namespace that holds almost
// nothing: the seed. A clone copies the mount table of its parent, so a clone
// from the seed costs the same on a host with a thousand mounts, and nothing
// of the host is in reach of a half-made container.
//
// The caller has locked the thread and never gives it back.
func EnterSeed() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // implies CLONE_FS
		return err
	}
	// Nothing may pass back to the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	root, err := newMount("tmpfs")
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, name := range []string{"root", "spare", "proc", "sys"} {
		if err := unix.Mkdirat(root, name, 0o755); err != nil {
			return err
		}
	}
	// Any place serves; the namespace is ours alone and /proc is surely there.
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	// In a user namespace the kernel lets procfs and sysfs be mounted only
	// where one is fully visible already.
	for name, kind := range map[string]string{"proc": "proc", "sys": "sysfs"} {
		if err := attachNew(kind, name); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func attachNew(kind, place string) error {
	mount, err := newMount(kind)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return unix.MoveMount(mount, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func newMount(kind string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
