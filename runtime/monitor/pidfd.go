package monitor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidfdInfo is struct pidfd_info of <linux/pidfd.h>, as of Linux 6.15.
type pidfdInfo struct {
	Mask                                             uint64
	CgroupID                                         uint64
	PID, TGID, PPID                                  uint32
	RUID, RGID, EUID, EGID, SUID, SGID, FSUID, FSGID uint32
	ExitCode                                         int32
}

const (
	pidfdInfoExit = 1 << 3
	// PIDFD_GET_INFO, _IOWR(0xFF, 11, struct pidfd_info)
	pidfdGetInfo = 3<<30 | uintptr(unsafe.Sizeof(pidfdInfo{}))<<16 | 0xFF<<8 | 11
)

// exitOfPidfd asks the kernel for the exit code of a process that was not our
// child. Before Linux 6.15 nobody but the parent learns it.
func exitOfPidfd(pidfd int) (code int32, known bool) {
	info := pidfdInfo{Mask: pidfdInfoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.Mask&pidfdInfoExit == 0 {
		return 255, false
	}
	return codeOf(unix.WaitStatus(info.ExitCode)), true
}

// endedChild is the pid of a child that has ended and was not waited for; 0
// when there is none. It stays to be waited for.
func endedChild() int {
	var info [128]byte // siginfo_t
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil {
		return 0
	}
	const pidOffset = 16 // after si_signo, si_errno and si_code, aligned to 8
	return int(*(*int32)(unsafe.Pointer(&info[pidOffset])))
}
