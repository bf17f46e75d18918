package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/enclosure"
)

// What a process that is to be the first of a node is told by.
const (
	nodeName = "CLUSTER_NODE"
	nodeDir  = "CLUSTER_NODE_DIR"
)

// nodeSocket is a file in the folder of a node at which its first process can be
// found by who is outside; nothing is said there.
const nodeSocket = "node.sock"

const socket = "/run/cri-mini/cri.sock"

// machine is a node seen from within: its first process.
type machine struct {
	name, dir string

	mu       sync.Mutex
	children map[int]*process
}

// runNode is the life of a node. Its log is its standard output.
func runNode(name string) int {
	m := &machine{name: name, dir: os.Getenv(nodeDir), children: map[int]*process{}}
	if err := m.live(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func (m *machine) live() error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM)
	if err := m.furnish(); err != nil {
		return err
	}
	door, err := net.Listen("unix", filepath.Join(m.dir, nodeSocket))
	if err != nil {
		return err
	}
	defer door.Close()
	if _, err := io.ReadAll(os.Stdin); err != nil { // its end says that the wire is there
		return err
	}
	if err := m.wire(); err != nil {
		return err
	}
	go m.reap()
	daemon, err := m.begin("cri-mini", enclosure.Program("cri-mini"), "serve", "--config", "/dev/null", "--network", "builtin", "--cluster-cidr", pods,
		"--registry-config-dir", m.dir+"/certs.d", "--cgroup-driver", "cgroupfs")
	if err != nil {
		return err
	}
	// As a kubelet's service waits for that of its runtime.
	err = await("the daemon answers", func() error {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return c.Close()
	}, daemon)
	if err != nil {
		return err
	}
	proxy, err := m.begin("kube-proxy", binary("kube-proxy"), "--config", m.dir+"/kube-proxy.yaml")
	if err != nil {
		return err
	}
	kubelet, err := m.begin("kubelet", binary("kubelet"), "--config", m.dir+"/kubelet.yaml", "--kubeconfig", m.dir+"/kubelet.kubeconfig",
		"--node-ip", nodeAddress(m.name), "--v", "2")
	if err != nil {
		return err
	}
	for _, p := range []*process{daemon, proxy, kubelet} {
		go func() {
			<-p.done
			select {
			case told <- unix.SIGCHLD:
			default:
			}
		}()
	}
	if <-told != unix.SIGTERM {
		return errors.Join(daemon.ended(), proxy.ended(), kubelet.ended())
	}
	return m.end(daemon, proxy, kubelet)
}

// end takes everything down, pods too, and looks what is left.
func (m *machine) end(daemon, proxy, kubelet *process) error {
	if err := errors.Join(kubelet.stop(unix.SIGTERM), proxy.stop(unix.SIGTERM)); err != nil {
		return err
	}
	stop, err := m.begin("stop", enclosure.Program("cri-mini"), "stop", "--pods", "--config", "/dev/null")
	if err != nil {
		return err
	}
	select {
	case <-stop.done:
	case <-time.After(patience / 2):
		return errors.New("cri-mini stop --pods does not end")
	}
	if stop.err != nil {
		return fmt.Errorf("stop: %w\n%s", stop.err, stop.tail(20))
	}
	<-daemon.done
	return within(patience/5, "nothing is left", func() error {
		if left := m.left(); len(left) > 0 {
			return errors.New(strings.Join(left, "\n"))
		}
		return nil
	})
}

// begin starts a program whose end reap tells.
func (m *machine) begin(name, path string, args ...string) (*process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := begin(m.dir+"/log", name, exec.Command(path, args...))
	if err == nil {
		m.children[p.cmd.Process.Pid] = p
	}
	return p, err
}

// reap takes the ends of all processes of the node, as a first process must.
func (m *machine) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.ECHILD): // for the moment
			time.Sleep(50 * time.Millisecond)
		case err != nil:
		default:
			m.mu.Lock()
			p := m.children[pid]
			delete(m.children, pid)
			m.mu.Unlock()
			if p != nil {
				p.end(statusError(status))
			}
		}
	}
}

func statusError(status unix.WaitStatus) error {
	if status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	if status.Signaled() {
		return fmt.Errorf("ended by %s", status.Signal())
	}
	return fmt.Errorf("exit status %d", status.ExitStatus())
}

// furnish makes the folders that a node has for itself, and its name.
func (m *machine) furnish() error {
	if err := enclosure.Settle("system"); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(m.name)); err != nil {
		return err
	}
	for from, to := range map[string]string{"lib": "/var/lib", "log": "/var/log"} {
		if err := unix.Mount(filepath.Join(m.dir, from), to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", to, err)
		}
	}
	return errors.Join(unfilterBridges(), m.coverSysctls())
}

// unfilterBridges makes the node's bridges what they are on machines that have
// not loaded br_netfilter: Services must work there too.
func unfilterBridges() error {
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// coverSysctls lets the kubelet write copies of what it sets for its node and
// what is the machine's.
func (m *machine) coverSysctls() error {
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"} {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			return err
		}
		path := filepath.Join(m.dir, "sysctl-"+strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(path, value, 0o644); err != nil {
			return err
		}
		if err := unix.Mount(path, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", name, err)
		}
	}
	return nil
}

// wire gives the node's end of its wire an address.
func (m *machine) wire() error {
	return commands([][]string{
		{"addr", "add", nodeAddress(m.name) + netmask, "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "via", control},
	})
}

// left is what there still is of pods, wherever it might be, but for the volumes
// of pods that nobody deleted: the kubelet keeps them for its next start.
func (m *machine) left() []string {
	var found []string
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		at := fields[4]
		if (strings.HasPrefix(at, "/var/lib/") && !strings.HasPrefix(at, "/var/lib/kubelet")) || (strings.HasPrefix(at, "/run/") && at != "/run/cri-mini") {
			found = append(found, "mount "+at)
		}
	}
	for _, pattern := range []string{"/sys/class/net/*", "/var/lib/cri-mini/pods/*", "/var/lib/cri-mini/containers/*",
		"/var/lib/cri-mini/network/pods/*", "/run/cri-mini/exits/*", "/run/cri-mini/tasks/*", "/proc/[0-9]*"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			switch path {
			case "/sys/class/net/lo", "/sys/class/net/eth0", "/proc/1":
			default:
				found = append(found, path)
			}
		}
	}
	_ = filepath.WalkDir(enclosure.CgroupRoot, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != enclosure.CgroupRoot && path != enclosure.CgroupRoot+"/system" && !strings.Contains(path, "/kubepods") {
			found = append(found, "cgroup "+path)
		}
		return nil
	})
	return found
}
