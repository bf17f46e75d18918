package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// floor is the name of the system calls of a pod's life, issued from this
// process: what no runtime can do without, and nothing else.
const floor = "bare kernel operations"

// live starts one pod and ends it.
func (b *bare) live(t *table) error {
	number := b.count
	b.count++
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespaces
		done <- b.life(t, number)
	}()
	return <-done
}

// CPU is what this process and its children have used.
func (b *bare) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var used unix.Rusage
		if err := unix.Getrusage(who, &used); err != nil {
			return 0, err
		}
		sum += time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	return sum, nil
}

// bare is what pods share.
type bare struct {
	dir    string
	bridge *netlink.Bridge
	host   *netlink.Handle
	count  int
}

func newBare(dir, busybox string) (*bare, error) {
	for _, name := range []string{"lower/bin", "lower/dev", "lower/proc", "lower/sys", "lower/etc", "etc", "pods"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	for _, applet := range []string{"sleep", "true"} {
		if err := os.WriteFile(filepath.Join(dir, "lower/bin", applet), program, 0o755); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		for _, parent := range []string{"lower/etc", "etc"} {
			if err := os.WriteFile(filepath.Join(dir, parent, name), nil, 0o644); err != nil {
				return nil, err
			}
		}
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bare0"}}
	if err := host.LinkAdd(bridge); err != nil {
		return nil, err
	}
	return &bare{dir: dir, bridge: bridge, host: host}, host.LinkSetUp(bridge)
}

// life starts one pod and ends it; the start is timed.
func (b *bare) life(t *table, number int) error {
	pod := filepath.Join(b.dir, "pods", fmt.Sprint(number))
	cgroup := filepath.Join("/sys/fs/cgroup", fmt.Sprintf("bare-%d", number))
	var process *os.Process
	start := time.Now()
	network, err := t.time("kernel: network, hostname", floor, func() error { return b.network(number) })
	if err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"kernel: cgroups, root file system, mounts", func() error { return b.mounts(pod, cgroup) }},
		{"kernel: clone, exec", func() (err error) { process, err = b.spawn(pod, cgroup); return err }},
	} {
		if _, err := t.time(s.name, floor, s.do); err != nil {
			return err
		}
	}
	took := time.Since(start)
	t.add(podStart, floor, took)
	t.add("kernel: pod start without network", floor, took-network)
	if err := b.exec(t, process.Pid, pod, cgroup); err != nil {
		return err
	}
	start = time.Now()
	if err := process.Kill(); err != nil {
		return err
	}
	if _, err := process.Wait(); err != nil {
		return err
	}
	if err := unix.Unmount(filepath.Join(pod, "root"), unix.MNT_DETACH); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(cgroup, "c")); err != nil {
		return err
	}
	if err := os.Remove(cgroup); err != nil {
		return err
	}
	err = os.RemoveAll(pod)
	t.add(podEnd, floor, time.Since(start))
	return err
}

func (b *bare) network(number int) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("bare")); err != nil {
		return err
	}
	inside, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: fmt.Sprintf("bare%d", number+1), MasterIndex: b.bridge.Index, Flags: net.FlagUp},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsFd(int(own.Fd())),
	}
	if err := b.host.LinkAdd(pair); err != nil {
		return err
	}
	for _, name := range []string{"lo", "eth0"} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "eth0" {
			address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 200, byte(number>>8), byte(number)+1), Mask: net.CIDRMask(16, 32)}}
			if err := inside.AddrAdd(link, address); err != nil {
				return err
			}
		}
		if err := inside.LinkSetUp(link); err != nil {
			return err
		}
		if name == "eth0" {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(10, 200, 255, 254)}
			if err := inside.RouteAdd(route); err != nil {
				return err
			}
		}
	}
	return nil
}

// mounts makes the mounts of a kubelet's container in a new mount namespace.
func (b *bare) mounts(pod, cgroup string) error {
	root := filepath.Join(pod, "root")
	for _, dir := range []string{cgroup, filepath.Join(cgroup, "c"), pod, root, filepath.Join(pod, "upper"), filepath.Join(pod, "work")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	in := func(path string) string { return filepath.Join(root, path) }
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", filepath.Join(b.dir, "lower"), filepath.Join(pod, "upper"), filepath.Join(pod, "work"))
	for _, m := range []struct {
		source, target, kind, data string
		flags                      uintptr
	}{
		{"overlay", root, "overlay", layers, 0},
		{"proc", in("proc"), "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", in("sys"), "sysfs", "", unix.MS_RDONLY},
		{"cgroup2", in("sys/fs/cgroup"), "cgroup2", "", unix.MS_RDONLY},
		{"tmpfs", in("dev"), "tmpfs", "mode=755", unix.MS_NOSUID},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for i, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		minor := []uint32{3, 5, 7, 8, 9, 0}[i]
		major := uint32(1)
		if name == "tty" {
			major = 5
		}
		if err := unix.Mknod(in("dev/"+name), unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))); err != nil {
			return err
		}
	}
	for _, dir := range []string{"pts", "mqueue", "shm"} {
		if err := os.Mkdir(in("dev/"+dir), 0o755); err != nil {
			return err
		}
	}
	for _, m := range [][3]string{{"devpts", "dev/pts", "newinstance,ptmxmode=0666"}, {"mqueue", "dev/mqueue", ""}, {"tmpfs", "dev/shm", "size=64m"}} {
		if err := unix.Mount(m[0], in(m[1]), m[0], unix.MS_NOSUID, m[2]); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return b.binds(in)
}

// binds are three files of the pod, and the masks and read-only paths of those
// that this kernel has.
func (b *bare) binds(in func(string) string) error {
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if err := unix.Mount(filepath.Join(b.dir, "etc", name), in("etc/"+name), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	for _, path := range []string{"proc/interrupts", "proc/kcore", "proc/keys", "proc/timer_list"} {
		if err := unix.Mount("/dev/null", in(path), "", unix.MS_BIND, ""); err != nil && err != unix.ENOENT {
			return fmt.Errorf("mask %s: %w", path, err)
		}
	}
	for _, path := range []string{"proc/acpi", "proc/scsi", "sys/firmware"} {
		if err := unix.Mount("tmpfs", in(path), "tmpfs", unix.MS_RDONLY, "size=0"); err != nil && err != unix.ENOENT {
			return fmt.Errorf("mask %s: %w", path, err)
		}
	}
	for _, path := range []string{"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"} {
		err := unix.Mount(in(path), in(path), "", unix.MS_BIND, "")
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
		if err := unix.Mount("", in(path), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("remount %s: %w", path, err)
		}
	}
	return nil
}

func (b *bare) spawn(pod, cgroup string) (*os.Process, error) {
	group, err := os.Open(filepath.Join(cgroup, "c"))
	if err != nil {
		return nil, err
	}
	defer group.Close()
	command := exec.Command("/bin/sleep", "1000000")
	command.Env = []string{"PATH=/bin"}
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{
		Chroot:      filepath.Join(pod, "root"),
		Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		UseCgroupFD: true,
		CgroupFD:    int(group.Fd()),
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	return command.Process, nil
}

// exec runs a program in the namespaces of the pod, in a group of its own, until
// its output and its exit are known.
func (b *bare) exec(t *table, pid int, pod, cgroup string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespaces
		_, err := t.time(execution[0].name, floor, func() error { return run(pid, filepath.Join(pod, "root"), filepath.Join(cgroup, "exec")) })
		done <- err
	}()
	return <-done
}

func run(pid int, root, cgroup string) error {
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return err
	}
	group, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer group.Close()
	target, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(target, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS); err != nil {
		return err
	}
	command := exec.Command("/bin/true")
	command.Env = []string{"PATH=/bin"}
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: root, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return os.Remove(cgroup)
}
