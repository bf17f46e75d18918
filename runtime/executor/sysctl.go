package executor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// writeSysctls sets those of the namespaces of the calling thread. In a user
// namespace the ones of IPC can be written by its root alone, whatever the
// rights of another; those of the network by whoever has rights over it.
func writeSysctls(s spec.Sandbox) error {
	for key, value := range s.Sysctls {
		err := writeSysctl(key, value)
		if errors.Is(err, unix.EACCES) && s.IDs != nil {
			err = asUser(s.IDs.Host, func() error { return writeSysctl(key, value) })
		}
		if err != nil {
			return &spec.InputError{Part: spec.InputSysctl, Name: key, Value: value, Err: err}
		}
	}
	return nil
}

func writeSysctl(key, value string) error {
	name := filepath.Join("/proc/sys", path.Clean("/"+key))
	err := os.WriteFile(name, []byte(value), 0)
	if cause := errors.Unwrap(err); cause != nil {
		return cause // the caller names the key
	}
	return err
}

// asUser lets the calling thread, which is locked, act as another user. The
// library's own call would change all threads.
func asUser(uid uint32, do func() error) (err error) {
	// The kernel makes a process that changes its user not dumpable.
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	if err := effectiveUser(uid); err != nil {
		return fmt.Errorf("act as user %d: %w", uid, err)
	}
	defer func() {
		back := effectiveUser(0)
		if dumpable == 1 {
			back = errors.Join(back, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
		}
		err = errors.Join(err, back)
	}()
	return do()
}

func effectiveUser(uid uint32) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return errno
	}
	return nil
}
