// Command cluster runs a small Kubernetes cluster on this machine: etcd, API
// server, controller manager and scheduler, and two nodes of cri-mini, kubelet
// and kube-proxy.
//
// A cluster lives in an enclosure: namespaces of its own, in whose network is a
// bridge. A node is a process with namespaces below those, wired to the bridge;
// it has folders, a process table, a host name and a part of the cgroup tree for
// itself. When the first process of the enclosure ends, the kernel ends
// everything else. The tests of this package use what the command shows.
//
//	cluster serve DIR                     runs a cluster until it is told to end
//	cluster enter DIR NODE COMMAND...     runs a command on a node of it
//	cluster end DIR                       tells it to end
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"cri-mini/internal/enclosure"
)

func main() {
	if name := os.Getenv(nodeName); name != "" {
		os.Exit(runNode(name))
	}
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "serve":
		os.Exit(serveMain(args[1]))
	case len(args) > 3 && args[0] == "enter":
		complain(enterNode(args[1], args[2], args[3:]))
		os.Exit(1)
	case len(args) == 2 && args[0] == "end":
		if err := tellToEnd(args[1]); err != nil {
			complain(err)
			os.Exit(1)
		}
		return
	}
	fmt.Fprintln(os.Stderr, "usage: cluster serve DIR | cluster enter DIR NODE COMMAND... | cluster end DIR")
	os.Exit(2)
}

func complain(err error) { fmt.Fprintln(os.Stderr, "cluster:", err) }

// listener is the process that listens at a socket, by the pid that the caller
// knows: in its own namespaces it has another one.
func listener(path string) (pid int, err error) {
	connection, err := net.Dial("unix", path)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	raw, err := connection.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// enterNode executes a command in the place of this process. It returns errors only.
func enterNode(dir, name string, args []string) error {
	pid, err := listener(filepath.Join(dir, name, nodeSocket))
	if err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	return unix.Exec(nsenter, append(enterFlags(pid), args...), os.Environ())
}

// tellToEnd signals the process inside of the enclosure: who is told to end
// outside takes it away at once.
func tellToEnd(dir string) error {
	pid, err := listener(filepath.Join(dir, apiSocket))
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGTERM)
}

// serveMain runs a cluster, in an enclosure.
func serveMain(dir string) int {
	if !enclosure.Entered() {
		if err := admit(dir); err != nil {
			complain(err)
			return 1
		}
	}
	return enclosure.Run(func() int {
		if err := serve(dir); err != nil {
			complain(err)
			return 1
		}
		return 0
	})
}

// admit opens a door to the API server for the machine: the cluster has a
// network of its own.
func admit(dir string) error {
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "address"), []byte(door.Addr().String()), 0o644); err != nil {
		return err
	}
	go forward(door, "unix", filepath.Join(dir, apiSocket))
	return nil
}

// serve is in the enclosure. The file kubeconfig appears once the cluster is there.
func serve(dir string) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM, unix.SIGINT)
	c, err := up(dir, func(done string) { fmt.Println("  " + done) })
	if err != nil {
		return errors.Join(err, c.down())
	}
	if err := c.serveAPI(filepath.Join(dir, apiSocket)); err != nil {
		return err
	}
	address, err := os.ReadFile(filepath.Join(dir, "address"))
	if err != nil {
		return err
	}
	if err := c.kubeconfig("new", "admin", "https://"+string(address)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "new.kubeconfig"), filepath.Join(dir, "kubeconfig")); err != nil {
		return err
	}
	var ending atomic.Bool
	for _, p := range c.all() {
		go func() {
			<-p.done
			if !ending.Load() {
				complain(p.ended())
			}
		}()
	}
	<-told
	ending.Store(true)
	return c.down()
}
