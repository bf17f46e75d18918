package executor

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/boot"
	"cri-mini/runtime/spec"
)

// holder is a process of ours that exists only to be in new namespaces while
// descriptors of them are opened.
type holder struct {
	pid   int
	cmd   *exec.Cmd
	stdin io.Closer
}

// hold makes a user namespace with this mapping and, in it, the namespaces of
// flags.
func hold(ids spec.IDMapping, flags int) (*holder, error) {
	mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(ids.Host), Size: int(ids.Length)}}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"cri-mini: namespaces"}
	cmd.Env = []string{boot.Variable + "=" + boot.Hold}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  uintptr(flags) | syscall.CLONE_NEWUSER,
		UidMappings: mapping, GidMappings: mapping, GidMappingsEnableSetgroups: true,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		stdin.Close()
		return nil, fmt.Errorf("user namespace with ids %d to %d: %w", ids.Host, ids.Host+ids.Length-1, err)
	}
	return &holder{pid: cmd.Process.Pid, cmd: cmd, stdin: stdin}, nil
}

func (h *holder) end() {
	h.stdin.Close()
	h.cmd.Wait()
}

// userNS is a user namespace with this mapping, for id-mapped mounts: any one
// with the same mapping serves. The caller closes it.
func (e *Executor) userNS(ids spec.IDMapping) (*os.File, error) {
	e.usersMu.Lock()
	defer e.usersMu.Unlock()
	if f := e.users[ids]; f != nil {
		return dup(f)
	}
	held, err := hold(ids, 0)
	if err != nil {
		return nil, err
	}
	defer held.end()
	f, err := os.Open("/proc/" + strconv.Itoa(held.pid) + "/ns/user")
	if err != nil {
		return nil, err
	}
	e.users[ids] = f
	return dup(f)
}

// dropUsers closes the user namespaces that are kept for later mounts. Each pod
// has a mapping of its own: kept for ever, there would be one for each that was.
func (e *Executor) dropUsers() {
	e.usersMu.Lock()
	defer e.usersMu.Unlock()
	for ids, f := range e.users {
		f.Close()
		delete(e.users, ids)
	}
}

// MapsIDs says why pods with users of their own cannot have the files of a
// folder; nil when they can.
func (e *Executor) MapsIDs(dir string) error {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	mapped, err := e.mapped(f, spec.IDMapping{Host: 1 << 16, Length: 1 << 16})
	e.dropUsers()
	if err != nil {
		return err
	}
	return mapped.Close()
}
