package plan

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox/cdi"
	"cri-mini/runtime/capability"
	"cri-mini/runtime/spec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var facts = Facts{
	Hostname:        "node-1",
	CgroupParent:    "/cri-mini",
	OpenFiles:       1048576,
	OwnCapabilities: 1<<41 - 1,
	AllCapabilities: 1<<41 - 1,
	Hidden:          []string{"/proc/hidden"},
	Readonly:        []string{"/proc/readonly"},
}

func pod() *criapi.PodSandboxConfig {
	return &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "uid-1"},
		Hostname:     "web-0",
		LogDirectory: "/var/log/pods/web",
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: "/kubepods/burstable/pod1",
			SecurityContext: &criapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
			},
		},
	}
}

// request is a container that asks for nothing but an image.
func request() Request {
	return Request{
		ID:      "c1",
		Sandbox: spec.Sandbox{ID: "s1"},
		Pod:     pod(),
		Config: &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: "app"},
			Image:    &criapi.ImageSpec{Image: "app"},
			Linux: &criapi.LinuxContainerConfig{SecurityContext: &criapi.LinuxContainerSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
			}},
		},
		Image: Image{
			Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"PATH=/app", "A=image", "noname"},
			WorkingDir: "srv", User: "web", StopSignal: "SIGQUIT",
		},
		Rootfs: spec.Rootfs{Layers: []spec.Layer{{Path: "/layers/1", Form: spec.ErofsLayer}}, Writable: "/root/containers/c1"},
		Passwd: []byte("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n"),
		Group:  []byte("www:x:34:\nadm:x:4:web\n"),
		Etc:    "/root/pods/s1/etc",
		Facts:  facts,
	}
}

func (r *Request) security() *criapi.LinuxContainerSecurityContext {
	return r.Config.Linux.SecurityContext
}

// kubelet fills in what a kubelet sends for an ordinary container.
func kubelet(r *Request) {
	c := r.Config
	c.Args = []string{"--port", "80"}
	c.Envs = []*criapi.KeyValue{{Key: "A", Value: []byte("user")}, {Key: "B", Value: []byte("x=y")}}
	c.LogPath = "app/0.log"
	c.StopSignal = criapi.Signal_SIGNAL_SIGRTMINPLUS1
	c.Mounts = []*criapi.Mount{
		{ContainerPath: "/etc/hosts", HostPath: "/var/lib/kubelet/hosts"},
		{ContainerPath: "/dev/termination-log", HostPath: "/var/lib/kubelet/term"},
		{ContainerPath: "/data/deep/er", HostPath: "/srv/er", Readonly: true, RecursiveReadOnly: true, MountOptions: []string{"noexec", "nosuid", "nodev"}},
		{ContainerPath: "/data", HostPath: "/srv", Propagation: criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
	}
	c.Linux.Resources = &criapi.LinuxContainerResources{
		CpuPeriod: 100000, CpuQuota: 20000, CpuShares: 102, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 999,
		HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB"}},
		Unified:        map[string]string{"memory.low": "0", "memory.oom.group": "1"},
	}
	s := r.security()
	s.RunAsUser = &criapi.Int64Value{Value: 1000}
	s.SupplementalGroups = []int64{7, 5}
	s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault}
	s.MaskedPaths = []string{"/proc/kcore", "/sys/firmware"}
	s.ReadonlyPaths = []string{"/proc/sys"}
	s.NoNewPrivs = true
	s.ReadonlyRootfs = true
}

var containers = map[string]func(*Request){
	"image-only": func(*Request) {},
	"kubelet":    kubelet,
	"command-drops-the-images-arguments": func(r *Request) {
		r.Config.Command = []string{"/bin/sh"}
		r.Config.WorkingDir = "/tmp/../work"
		r.Config.Tty, r.Config.Stdin, r.Config.StdinOnce = true, true, true
	},
	"privileged": func(r *Request) {
		kubelet(r)
		r.Pod.Linux.SecurityContext.Privileged = true
		s := r.security()
		s.Privileged = true
		s.Apparmor = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: "strict"}
		r.HostDevices = []spec.Device{{HostPath: "/dev/kmsg", ContainerPath: "/dev/kmsg", Permissions: "rwm"}, {HostPath: "/dev/loop0", ContainerPath: "/dev/loop0", Permissions: "rwm"}}
		r.Devices = []spec.Device{{HostPath: "/dev/null", ContainerPath: "/dev/loop0", Permissions: "r"}}
	},
	"user-namespace": func(r *Request) {
		r.Sandbox.IDs = &spec.IDMapping{Host: 65536, Length: 65536}
		r.Rootfs.IDs = r.Sandbox.IDs
		ids := []*criapi.IDMapping{{HostId: 65536, Length: 65536}}
		r.Config.Mounts = []*criapi.Mount{{ContainerPath: "/data", HostPath: "/srv", UidMappings: ids, GidMappings: ids}}
	},
	"CDI-devices": func(r *Request) {
		r.Sandbox.IDs = &spec.IDMapping{Host: 65536, Length: 65536}
		mode := uint32(0o640)
		r.Config.Mounts = []*criapi.Mount{{ContainerPath: "/usr/lib/gpu.so", HostPath: "/mine"}, {ContainerPath: "/usr/lib", HostPath: "/lib"}}
		r.Config.Envs = []*criapi.KeyValue{{Key: "GPU", Value: []byte("mine")}}
		r.Devices = []spec.Device{{HostPath: "/dev/null", ContainerPath: "/dev/gpu0", Permissions: "r"}}
		r.CDI = cdi.Edits{
			Env: []string{"GPU=0"},
			Devices: []spec.Device{
				{HostPath: "/dev/nvidia0", ContainerPath: "/dev/gpu0", Permissions: "rw"},
				{HostPath: "/dev/none", ContainerPath: "/dev/made", Kind: spec.BlockDevice, Major: 7, Minor: 1, Mode: &mode, UID: new(uint32)},
				{HostPath: "/dev/x", ContainerPath: "/elsewhere", Permissions: "r"},
			},
			Mounts: []spec.Mount{
				{Kind: spec.BindMount, Source: "/opt/gpu.so", Target: "/usr/lib/gpu.so", ReadOnly: true, Alone: true},
				{Kind: spec.TmpfsMount, Target: "/scratch", Size: 4096},
			},
			Groups: []uint32{44, 34},
		}
	},
	"image-volume": func(r *Request) {
		r.Config.Mounts = []*criapi.Mount{{ContainerPath: "/model", Readonly: true, ImageSubPath: "a/b", Image: &criapi.ImageSpec{Image: "model"}}}
		r.ImageVolumes = map[int][]spec.Layer{0: {{Path: "/layers/2", Form: spec.DirectoryLayer}}}
	},
	"shared-processes-and-capabilities": func(r *Request) {
		r.Sandbox.SharedPID = true
		s := r.security()
		s.NamespaceOptions.Pid = criapi.NamespaceMode_POD
		s.Capabilities = &criapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}
		s.SupplementalGroupsPolicy = criapi.SupplementalGroupsPolicy_Strict
	},
	"another-containers-processes": func(r *Request) {
		r.security().NamespaceOptions = &criapi.NamespaceOption{Pid: criapi.NamespaceMode_TARGET, TargetId: "c0"}
		r.Pod.Linux.CgroupParent = "" // our own
		r.Facts.SystemdCgroups, r.Facts.CgroupParent = true, "/cri_mini.slice"
		r.Devices = []spec.Device{{HostPath: "/dev/fuse", ContainerPath: "/dev/fuse", Permissions: "rwm"}}
		r.Config.Linux.Resources = &criapi.LinuxContainerResources{CpuQuota: -1, MemoryLimitInBytes: -1, MemorySwapLimitInBytes: -1}
	},
	"pod-options-stand-in-for-missing-ones": func(r *Request) {
		r.Config.Linux = nil
		r.Pod.Linux.SecurityContext.NamespaceOptions = &criapi.NamespaceOption{Pid: criapi.NamespaceMode_NODE, Network: criapi.NamespaceMode_NODE}
		r.Image = Image{Cmd: []string{"/static"}}
		r.Passwd, r.Group = nil, nil
		r.Facts.OpenFiles = 0
	},
}

func TestContainerGolden(t *testing.T) {
	for name, change := range containers {
		t.Run(name, func(t *testing.T) {
			r := request()
			change(&r)
			before := proto.CloneOf(r.Config)
			got, err := Container(r)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(before, r.Config) {
				t.Error("the request was changed")
			}
			if n := len(got.Spec.Process.Seccomp); n > 0 {
				if n%8 != 0 {
					t.Errorf("filter of %d bytes, want instructions of 8", n)
				}
				got.Spec.Process.Seccomp = []byte("filter") // package seccomp has its own tests
			}
			golden(t, name, struct {
				Plan
				Capabilities []string // of the bounding set, for the reader
			}{got, capability.Names(got.Spec.Process.Capabilities.Bounding)})
		})
	}
}

var sandboxes = map[string]func(*criapi.PodSandboxConfig){
	"pod-plain": func(*criapi.PodSandboxConfig) {},
	"pod-defaults": func(c *criapi.PodSandboxConfig) {
		c.Hostname, c.Linux = "", nil
	},
	"pod-of-the-node": func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &criapi.NamespaceOption{
			Network: criapi.NamespaceMode_NODE, Ipc: criapi.NamespaceMode_NODE, Pid: criapi.NamespaceMode_NODE,
			UsernsOptions: &criapi.UserNamespace{Mode: criapi.NamespaceMode_NODE},
		}
	},
	"pod-with-users-and-sysctls": func(c *criapi.PodSandboxConfig) {
		ids := []*criapi.IDMapping{{HostId: 100000, Length: 65536}}
		c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: ids, Gids: ids}
		c.Linux.Sysctls = map[string]string{
			"kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "100", "net/ipv4/conf/eth0.1/forwarding": "1", "net.core.somaxconn": "10",
		}
	},
}

func TestSandboxGolden(t *testing.T) {
	for name, change := range sandboxes {
		t.Run(name, func(t *testing.T) {
			cfg := pod()
			change(cfg)
			got, err := Sandbox("s1", cfg, facts)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
		})
	}
}

func golden(t *testing.T, name string, v any) {
	t.Helper()
	var fields any
	got, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(got, &fields)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err = json.MarshalIndent(prune(fields), "", "  "); err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", "spec", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("plan %s is\n%s\nwant\n%s", name, got, want)
	}
}

// prune leaves out what is zero, so that a golden file shows what was decided.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, field := range v {
			if field = prune(field); field == nil {
				delete(v, name)
			} else {
				v[name] = field
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			if pruned := prune(v[i]); pruned != nil {
				v[i] = pruned
			}
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	}
	return v
}
