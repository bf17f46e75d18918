// Package place gives each of several daemons on one machine what looks like a
// machine of its own: mounts, network, IPC and a cgroup tree.
//
// A Place is a process that holds the namespaces; Command starts others in them.
// All they use of the processor and of memory is told by the Place's cgroup.
package place

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Place is held by the process Keeper.
type Place struct {
	keeper *exec.Cmd
	group  string
	leaf   *os.File
}

// furnish runs in new namespaces, with a folder as $0. /run and /var/lib become
// empty: programs have paths there that nobody can configure. A group that has
// processes cannot have controllers for its children, so there is a leaf for them.
const furnish = `set -e
umount -l /sys
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/daemon "$0/lib"
echo $$ >/sys/fs/cgroup/daemon/cgroup.procs
mount -t tmpfs tmpfs /run
mount --bind "$0/lib" /var/lib
ip link set lo up
echo ready
exec sleep infinity`

// New makes a place whose files are in folder. The name is unique on the machine.
func New(name, folder string) (*Place, error) {
	group := filepath.Join("/sys/fs/cgroup", name)
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(group)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	keeper := exec.Command("unshare", "--mount", "--net", "--ipc", "--uts", "--cgroup", "--propagation", "private", "sh", "-c", furnish, folder)
	keeper.Stderr = os.Stderr
	keeper.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	output, err := keeper.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := keeper.Start(); err != nil {
		return nil, fmt.Errorf("place %s: %w", name, err)
	}
	p := &Place{keeper: keeper, group: group}
	if line, err := bufio.NewReader(output).ReadString('\n'); line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("place %s: furnishing it ended: %w", name, err), p.Close())
	}
	if p.leaf, err = os.Open(filepath.Join(group, "daemon")); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Command is a program in the place. Its process is the program's own.
func (p *Place) Command(program string, args ...string) *exec.Cmd {
	enter := []string{"--target", fmt.Sprint(p.keeper.Process.Pid), "--mount", "--net", "--ipc", "--uts", "--cgroup", "--", program}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(p.leaf.Fd())}
	return cmd
}

// Listen opens a port on the place's loopback. Whoever accepts is not in the place.
func (p *Place) Listen() (net.Listener, error) {
	type result struct {
		net.Listener
		error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		l, err := p.listen()
		done <- result{l, err}
	}()
	r := <-done
	return r.Listener, r.error
}

func (p *Place) listen() (net.Listener, error) {
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.keeper.Process.Pid))
	if err != nil {
		return nil, err
	}
	defer network.Close()
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter the network of a place: %w", err)
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// MakeGroup makes a cgroup, which programs in the place know by the same path.
// What removes it again is the caller's.
func (p *Place) MakeGroup(path string) (remove func() error, err error) {
	dir := filepath.Join(p.group, path)
	return func() error { return os.Remove(dir) }, os.MkdirAll(dir, 0o755)
}

// Close ends whatever runs in the place. The cgroups are left to whoever made
// the tree that they are in.
func (p *Place) Close() error {
	if p.leaf != nil {
		p.leaf.Close()
	}
	err := os.WriteFile(filepath.Join(p.group, "cgroup.kill"), []byte("1"), 0)
	_ = p.keeper.Wait() // killed
	return err
}
