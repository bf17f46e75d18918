package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/fdstore"
	"cri-mini/internal/undo"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// sandbox is the descriptors that make a pod: net, ipc, uts, user, pid, shm.
// The monitor has them too.
type sandbox struct {
	files    files
	counters counters
}

func (s *sandbox) close() {
	s.counters.close()
	s.files.close()
}

// initID is the task of a sandbox's reaping init.
func initID(sandbox string) string { return initPrefix + sandbox }

const initPrefix = "init-"

// told is the id by which others know a task: an init has that of its sandbox.
func told(task string) string { return strings.TrimPrefix(task, initPrefix) }

// CreateSandbox makes the namespaces of a pod and gives them to the monitor
// to keep. The process is the init of a shared PID namespace.
func (e *Executor) CreateSandbox(ctx context.Context, s spec.Sandbox) (init spec.Started, err error) {
	var back undo.Stack
	defer back.Run()
	made, err := e.namespaces(s)
	if err != nil {
		return init, fmt.Errorf("namespaces: %w", err)
	}
	back.Add(func() error { made.close(); return nil })
	crashpoint.Here("pod.namespaces-made")
	if err := e.shm(s, made); err != nil {
		return init, fmt.Errorf("/dev/shm: %w", err)
	}
	if s.SharedPID {
		if init, err = e.startInit(ctx, s, made); err != nil {
			return init, fmt.Errorf("init of the shared PID namespace: %w", err)
		}
		back.Add(func() error { return e.endInit(context.WithoutCancel(ctx), s.ID) })
	}
	// In the table before the monitor has it: what is there, a monitor that
	// replaces this one is given too.
	e.keep(s.ID, &sandbox{files: made})
	back.Add(func() error { e.take(s.ID); return nil })
	if err := e.pin(ctx, s.ID, made); err != nil {
		return init, err
	}
	e.store.Keep(storedPod+s.ID, fdstore.Bundle(made))
	crashpoint.Here("pod.pinned")
	back.Keep()
	return init, nil
}

// keep enters a sandbox in the table, unless another call was faster.
func (e *Executor) keep(id string, s *sandbox) *sandbox {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other := e.sandboxes[id]; other != nil {
		s.close()
		return other
	}
	e.sandboxes[id] = s
	return s
}

// take removes a sandbox from the table; nil when there is none.
func (e *Executor) take(id string) *sandbox {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sandboxes[id]
	delete(e.sandboxes, id)
	return s
}

func (e *Executor) pin(ctx context.Context, id string, made files) error {
	request := &wire.Request{Verb: wire.Pin, ID: id}
	var send []*os.File
	for name, f := range made {
		request.Names = append(request.Names, name)
		send = append(send, f)
	}
	_, _, err := e.monitor.request(ctx, request, send)
	return err
}

// namespaces makes what the pod does not share with the node. A thread that
// enters new namespaces and ends is all it takes: the descriptors keep them.
func (e *Executor) namespaces(s spec.Sandbox) (files, error) {
	if s.IDs != nil {
		return e.userNamespaces(s)
	}
	kinds, flags := wanted(s)
	made := files{}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with us
		done <- func() error {
			if err := unix.Unshare(flags); err != nil {
				return err
			}
			if err := openNamespaces("/proc/thread-self/ns/", kinds, made); err != nil {
				return err
			}
			return configure(s)
		}()
	}()
	if err := <-done; err != nil {
		made.close()
		return nil, err
	}
	return made, nil
}

// wanted lists the namespaces that a pod has of its own.
func wanted(s spec.Sandbox) (kinds []string, flags int) {
	for _, n := range []struct {
		kind string
		host bool
		flag int
	}{{"net", s.HostNetwork, unix.CLONE_NEWNET}, {"ipc", s.HostIPC, unix.CLONE_NEWIPC}, {"uts", s.HostUTS, unix.CLONE_NEWUTS}} {
		if !n.host {
			kinds, flags = append(kinds, n.kind), flags|n.flag
		}
	}
	return kinds, flags
}

func openNamespaces(dir string, kinds []string, made files) error {
	for _, kind := range kinds {
		f, err := os.OpenFile(dir+kind, os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		made[kind] = f
	}
	return nil
}

// configure sets what belongs to the namespaces of the calling thread.
func configure(s spec.Sandbox) error {
	if !s.HostUTS && s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("hostname %q: %w", s.Hostname, err)
		}
	}
	return writeSysctls(s)
}

// userNamespaces makes a user namespace and in it all others, which then
// belong to it. Only a new process can enter one, for we have many threads.
func (e *Executor) userNamespaces(s spec.Sandbox) (files, error) {
	kinds, flags := wanted(s)
	held, err := hold(*s.IDs, flags)
	if err != nil {
		return nil, err
	}
	defer held.end()
	made := files{}
	if err := openNamespaces("/proc/"+strconv.Itoa(held.pid)+"/ns/", append([]string{"user"}, kinds...), made); err != nil {
		made.close()
		return nil, err
	}
	err = inNamespaces(made, func() error {
		if err := configure(s); err != nil {
			return err
		}
		return ownQueues(s)
	})
	if err != nil {
		made.close()
		return nil, err
	}
	return made, nil
}

// ownQueues gives /dev/mqueue to the root of the pod. Its file system came
// with the IPC namespace, when nobody was mapped yet.
func ownQueues(s spec.Sandbox) error {
	if s.HostIPC {
		return nil
	}
	tree, err := mount.New("mqueue", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	defer tree.Close()
	root := int(s.IDs.Host)
	return os.Chown(fmt.Sprintf("/proc/self/fd/%d", number(tree.File)), root, root)
}

// inNamespaces runs a function on a thread in these namespaces, which then
// ends.
func inNamespaces(made files, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			for kind, flag := range map[string]int{"net": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS} {
				if f := made[kind]; f != nil {
					if err := unix.Setns(int(f.Fd()), flag); err != nil {
						return fmt.Errorf("join the %s namespace: %w", kind, err)
					}
				}
			}
			return do()
		}()
	}()
	return <-done
}

// shm makes the memory that the pod's containers share, or shows the node's.
func (e *Executor) shm(s spec.Sandbox, made files) (err error) {
	var tree *mount.Tree
	if s.HostIPC {
		tree, err = mount.Bind("/dev/shm", true)
	} else {
		size := s.ShmSize
		if size == 0 {
			size = 64 << 20
		}
		options := labelled(s.Label, mount.Option{Key: "mode", Value: "1777"}, mount.Option{Key: "size", Value: strconv.FormatInt(size, 10)})
		if s.IDs != nil {
			root := strconv.FormatUint(uint64(s.IDs.Host), 10)
			options = append(options, mount.Option{Key: "uid", Value: root}, mount.Option{Key: "gid", Value: root})
		}
		tree, err = mount.New("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, options...)
	}
	if err != nil {
		return err
	}
	made["shm"] = tree.File
	return nil
}

// sandbox finds a sandbox, after a restart with the help of the monitor.
func (e *Executor) sandbox(ctx context.Context, id string) (*sandbox, error) {
	e.mu.Lock()
	s := e.sandboxes[id]
	e.mu.Unlock()
	if s != nil {
		return s, nil
	}
	_, got, err := e.monitor.request(ctx, &wire.Request{Verb: wire.Fetch, ID: id}, nil)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("sandbox %s: %w", id, ErrUnknown)
		}
		return nil, err
	}
	return e.keep(id, &sandbox{files: got}), nil
}

// SandboxNetNS returns a copy of the descriptor of the network namespace, and
// a path by which other programs can open it as long as the copy is open.
// Both are empty when the pod uses the node's.
func (e *Executor) SandboxNetNS(ctx context.Context, id string) (*os.File, string, error) {
	var s *sandbox
	err := outlive(ctx, func() (err error) {
		s, err = e.sandbox(ctx, id)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	net := s.files["net"]
	if net == nil {
		return nil, "", nil
	}
	f, err := dup(net)
	if err != nil {
		return nil, "", err
	}
	return f, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), nil
}

// RemoveSandbox lets the namespaces go. Processes in them keep them; there
// are none when all containers are removed.
func (e *Executor) RemoveSandbox(ctx context.Context, id string) error {
	if err := e.endInit(ctx, id); err != nil {
		return err
	}
	crashpoint.Here("pod.init-gone")
	s := e.take(id) // before the monitor lets it go, or its successor gets it
	err := e.unpin(ctx, id)
	if err == nil {
		e.store.Drop(storedPod + id)
	}
	crashpoint.Here("pod.unpinned")
	switch {
	case s == nil:
	case err != nil:
		e.keep(id, s)
	default:
		if s.files["user"] != nil {
			e.dropUsers()
		}
		s.close()
	}
	return err
}

func (e *Executor) unpin(ctx context.Context, id string) error {
	_, _, err := e.monitor.request(ctx, &wire.Request{Verb: wire.Unpin, ID: id}, nil)
	return err
}

// cgroupResources translates what a spec asks for.
func cgroupResources(r spec.Resources) cgroup.Resources {
	out := cgroup.Resources{
		CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota, CPUShares: r.CPUShares,
		CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems,
		MemoryLimit: r.MemoryLimit, MemorySwapLimit: r.MemorySwapLimit, PidsLimit: r.PidsLimit,
		Unified: r.Unified, AllowAllDevices: r.AllDevices,
	}
	for _, h := range r.Hugepages {
		out.HugepageLimits = append(out.HugepageLimits, cgroup.HugepageLimit{PageSize: h.PageSize, Limit: h.Limit})
	}
	return out
}
