package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cri-mini/internal/enclosure"
)

var nodeNames = []string{"node-1", "node-2"}

// nodeAddress is 172.30.0.11 for node-1, and so on.
func nodeAddress(name string) string {
	return fmt.Sprintf("172.30.0.1%d", slices.Index(nodeNames, name)+1)
}

// node is a machine of the cluster: a process with namespaces of its own, which
// is the first of them and parent of daemon, kubelet and kube-proxy. See init.go.
type node struct {
	name    string
	dir     string
	process *process
}

// startNodes starts all and waits until the cluster counts them in.
func (c *cluster) startNodes() error {
	if err := delegate(); err != nil {
		return err
	}
	for _, name := range nodeNames {
		n := &node{name: name, dir: filepath.Join(c.dir, name)}
		if err := c.prepare(n); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := n.start(c.dir); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.nodes = append(c.nodes, n)
	}
	err := c.await("all nodes are ready", func() error {
		_, err := c.kubectl("wait", "--for=condition=Ready", "--timeout=1s", "node", nodeNames[0], nodeNames[1])
		return err
	})
	if err != nil {
		for _, n := range c.nodes {
			kubelet := process{log: filepath.Join(n.dir, "log", "kubelet.log")}
			err = fmt.Errorf("%w\nkubelet of %s:\n%s", err, n.name, kubelet.tail(20))
		}
	}
	return err
}

// await waits while all programs run.
func (c *cluster) await(what string, check func() error) error {
	return await(what, check, c.all()...)
}

// all are the programs of the control plane and the first processes of the nodes.
func (c *cluster) all() []*process {
	list := slices.Clone(c.programs)
	for _, n := range c.nodes {
		list = append(list, n.process)
	}
	return list
}

// delegate gives the groups of the nodes all controllers there are.
func delegate() error {
	names, err := controllers()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.WriteFile(enclosure.CgroupRoot+"/cgroup.subtree_control", []byte("+"+name), 0); err != nil {
			return fmt.Errorf("give the nodes the controller %s: %w", name, err)
		}
	}
	return nil
}

// prepare writes what the programs of a node read.
func (c *cluster) prepare(n *node) error {
	for _, sub := range []string{"lib", "log", "certs.d"} {
		if err := os.MkdirAll(filepath.Join(n.dir, sub), 0o755); err != nil {
			return err
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	names, err := controllers()
	if err != nil {
		return err
	}
	values := map[string]any{
		"Name": n.name, "Dir": n.dir, "PKI": c.pki.dir, "Pods": pods, "DNS": dnsVIP,
		// The kubelet raises its limit to this, which needs a right that we may not have.
		"Files":       limit.Max,
		"Controllers": slices.Contains(names, "memory") && slices.Contains(names, "cpu"),
	}
	for _, name := range []string{"kubelet.yaml", "kube-proxy.yaml"} {
		if err := fill(name, filepath.Join(n.dir, name), values); err != nil {
			return err
		}
	}
	for name, user := range map[string]string{"kubelet": n.name, "kube-proxy": "kube-proxy"} {
		if err := c.kubeconfig(filepath.Join(n.name, name), user, "https://"+control+":6443"); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(n.dir, "resolv.conf"), nil, 0o644); err != nil {
		return err
	}
	return c.registry.Mirror(filepath.Join(n.dir, "certs.d"), imageHost)
}

// start makes the namespaces and the wire to the bridge.
func (n *node) start(dir string) error {
	group := filepath.Join(enclosure.CgroupRoot, n.name)
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	fd, err := os.Open(group)
	if err != nil {
		return err
	}
	defer fd.Close()
	wired, wire, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wired.Close()
	defer wire.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"node", n.name}
	cmd.Env = append(os.Environ(), nodeName+"="+n.name, nodeDir+"="+n.dir)
	cmd.Stdin = wired
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Unshareflags: unix.CLONE_NEWCGROUP, // once it is in its group
		UseCgroupFD:  true,
		CgroupFD:     int(fd.Fd()),
	}
	if n.process, err = run(filepath.Join(dir, "log"), n.name, cmd); err != nil {
		return err
	}
	return commands([][]string{
		{"link", "add", n.name, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(cmd.Process.Pid)},
		{"link", "set", n.name, "master", bridge, "up"},
	})
}

// stop lets a node end everything it runs. It fails when something is left.
func (n *node) stop() error {
	if err := n.process.stop(unix.SIGTERM); err != nil {
		return err
	}
	if n.process.err != nil {
		return fmt.Errorf("%s: %w\n%s", n.name, n.process.err, n.process.tail(30))
	}
	return nil
}

// enter is a command in the namespaces of a node.
func (n *node) enter(args ...string) []string {
	return append(enterFlags(n.process.cmd.Process.Pid), args...)
}

func enterFlags(pid int) []string {
	return []string{"nsenter", "--target", fmt.Sprint(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}
}

// route tells everybody on the bridge by which node the pods of a node are
// reached, once the cluster has given each a range.
func (c *cluster) route() error {
	return c.await("each node has a range for its pods", func() error {
		ranges, err := c.ranges()
		if err != nil {
			return err
		}
		for name, cidr := range ranges {
			route := []string{"ip", "route", "replace", cidr, "via", nodeAddress(name)}
			if _, err := command(route[0], route[1:]...); err != nil {
				return err
			}
			for _, n := range c.nodes {
				if n.name == name {
					continue
				}
				line := n.enter(route...)
				if _, err := command(line[0], line[1:]...); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// ranges are the addresses of the pods of each node.
func (c *cluster) ranges() (map[string]string, error) {
	text, err := c.kubectl("get", "nodes", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ PodCIDR string }
		}
	}
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&list); err != nil {
		return nil, err
	}
	ranges := map[string]string{}
	for _, item := range list.Items {
		if item.Spec.PodCIDR == "" {
			return nil, errors.New(item.Metadata.Name + " has none")
		}
		ranges[item.Metadata.Name] = item.Spec.PodCIDR
	}
	return ranges, nil
}
