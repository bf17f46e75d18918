package plan

import (
	"encoding/json"
	"errors"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox/cdi"
	"cri-mini/runtime/seccomp"
	"cri-mini/runtime/spec"
)

// ofTheNode is what a request may get without naming it: the devices of a
// privileged container, and what a CDI device stands for.
var (
	nodeDevices = []spec.Device{{HostPath: "/dev/kmsg", ContainerPath: "/dev/kmsg", Permissions: "rwm"}}
	cdiEdits    = cdi.Edits{
		Env:     []string{"GPU=0"},
		Devices: []spec.Device{{HostPath: "/dev/gpu0", ContainerPath: "/dev/gpu", Permissions: "rw"}},
		Mounts:  []spec.Mount{{Kind: spec.BindMount, Source: "/opt/gpu/lib", Target: "/usr/lib/gpu", ReadOnly: true}},
		Groups:  []uint32{44},
	}
	layers = []spec.Layer{{Path: "/layers/1", Form: spec.ErofsLayer}}
)

const etc = "/var/lib/cri-mini/pods/s1/etc"

// FuzzRequestToSpec lets anybody write the two requests and an image. Either
// there is an error that says what is wrong with them, or a spec that a node
// can dare to execute.
func FuzzRequestToSpec(f *testing.F) {
	add := func(run *criapi.RunPodSandboxRequest, create *criapi.CreateContainerRequest, image Image, passwd, group []byte) {
		r, err1 := proto.Marshal(run)
		c, err2 := proto.Marshal(create)
		i, err3 := json.Marshal(image)
		if err := errors.Join(err1, err2, err3); err != nil {
			f.Fatal(err)
		}
		f.Add(r, c, i, passwd, group)
	}
	for _, change := range containers {
		r := request()
		change(&r)
		for _, d := range r.Devices {
			r.Config.Devices = append(r.Config.Devices, &criapi.Device{HostPath: d.HostPath, ContainerPath: d.ContainerPath, Permissions: d.Permissions})
		}
		r.Config.CDIDevices = []*criapi.CDIDevice{{Name: "vendor.com/gpu=0"}}
		add(&criapi.RunPodSandboxRequest{Config: r.Pod}, &criapi.CreateContainerRequest{Config: r.Config}, r.Image, r.Passwd, r.Group)
	}
	for _, change := range sandboxes {
		cfg := pod()
		change(cfg)
		r := request()
		r.security().Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: "/p.json"}
		add(&criapi.RunPodSandboxRequest{Config: cfg}, &criapi.CreateContainerRequest{Config: r.Config}, r.Image, r.Passwd, r.Group)
	}
	f.Fuzz(func(t *testing.T, run, create, image, passwd, group []byte) {
		pod, container := new(criapi.RunPodSandboxRequest), new(criapi.CreateContainerRequest)
		if proto.Unmarshal(run, pod) != nil || proto.Unmarshal(create, container) != nil {
			t.Skip("not what gRPC would let through")
		}
		if pod.Config == nil || container.Config == nil {
			t.Skip("refused before")
		}
		r := Request{ID: "c1", Pod: pod.Config, Config: container.Config, Passwd: passwd, Group: group, Etc: etc, Facts: facts,
			Rootfs: spec.Rootfs{Layers: layers, Writable: "/w"}}
		if json.Unmarshal(image, &r.Image) != nil {
			t.Skip("not the config of an image")
		}
		var err error
		if r.Sandbox, err = Sandbox("s1", pod.Config, facts); err != nil {
			sayWhat(t, err)
			return
		}
		checkSandboxSpec(t, r.Sandbox, pod.Config)
		r.Rootfs.IDs = r.Sandbox.IDs
		gather(&r)
		before := proto.CloneOf(r.Config)
		got, err := Container(r)
		if !proto.Equal(before, r.Config) {
			t.Error("the request was changed")
		}
		if err != nil {
			sayWhat(t, err)
			return
		}
		checkContainerSpec(t, r, got)
		checkImageOrdersNothing(t, r, got.Spec)
		checkSurvivesARestart(t, got.Spec)
		checkExec(t, r, got.Spec.Process)
	})
}

// gather does what the caller does on the node.
func gather(r *Request) {
	for _, d := range r.Config.Devices {
		r.Devices = append(r.Devices, spec.Device{HostPath: d.GetHostPath(), ContainerPath: d.GetContainerPath(), Permissions: d.GetPermissions()})
	}
	r.ImageVolumes = map[int][]spec.Layer{}
	for i, m := range r.Config.Mounts {
		if m.GetImage() != nil {
			r.ImageVolumes[i] = layers
		}
	}
	if len(r.Config.CDIDevices) > 0 {
		r.CDI = cdiEdits
	}
	if r.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		r.HostDevices = nodeDevices
	}
	r.Profile = seccomp.Default(nil)
}

func sayWhat(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrInvalid) || err.Error() == "" || strings.Contains(err.Error(), "%!") || strings.Contains(err.Error(), "\n") {
		t.Errorf("an error that does not say what is wrong: %T %q", err, err)
	}
}

func clean(t *testing.T, what, p string) {
	t.Helper()
	if !path.IsAbs(p) || path.Clean(p) != p || strings.Contains(p, "\x00") {
		t.Errorf("%s %q is no clean absolute path", what, p)
	}
}

func checkSandboxSpec(t *testing.T, s spec.Sandbox, cfg *criapi.PodSandboxConfig) {
	t.Helper()
	clean(t, "cgroup", s.Cgroup)
	if parent := cfg.GetLinux().GetCgroupParent(); parent != "" && !strings.HasPrefix(s.Cgroup, path.Join("/", parent)) {
		t.Errorf("cgroup %q is not below %q", s.Cgroup, parent)
	}
	for name, value := range s.Sysctls {
		ipc, net := ipcSysctls[name] || strings.HasPrefix(name, "fs/mqueue/"), strings.HasPrefix(name, "net/")
		if path.Clean("/"+name) != "/"+name || strings.ContainsAny(name+value, "\x00\n") || !(ipc && !s.HostIPC || net && !s.HostNetwork) {
			t.Errorf("sysctl %q = %q in %+v", name, value, s)
		}
	}
	if s.IDs != nil && (s.HostNetwork || s.HostIPC || s.IDs.Length == 0 || s.IDs.Host+s.IDs.Length < s.IDs.Host) {
		t.Errorf("users %+v of %+v", s.IDs, s)
	}
}

func checkContainerSpec(t *testing.T, r Request, got Plan) {
	t.Helper()
	c := got.Spec
	clean(t, "cgroup", c.Cgroup)
	if path.Base(c.Cgroup) != r.ID {
		t.Errorf("cgroup %q is not the container's own", c.Cgroup)
	}
	if c.LogPath != "" {
		clean(t, "log", c.LogPath)
		if root := path.Clean(c.LogRoot); root != "/" && !strings.HasPrefix(c.LogPath, root+"/") {
			t.Errorf("log %q is not below %q", c.LogPath, c.LogRoot)
		}
	}
	sources := []string{etc + "/hostname", etc + "/hosts", etc + "/resolv.conf"}
	for _, m := range slices.Concat(r.CDI.Mounts) {
		sources = append(sources, m.Source)
	}
	for _, m := range r.Config.Mounts {
		sources = append(sources, m.HostPath)
	}
	for _, m := range c.Mounts {
		clean(t, "mount target", m.Target)
		switch {
		case m.Target == "/":
			t.Error("a mount on the root")
		case m.Kind == spec.BindMount && !slices.Contains(sources, m.Source), m.Kind != spec.BindMount && m.Source != "":
			t.Errorf("mount of %q, which nobody named", m.Source)
		case m.Kind == spec.BindMount:
			if !absolute(m.Source) {
				t.Errorf("mount of %q", m.Source)
			}
		case m.Kind != spec.ImageMount || !m.ReadOnly && !slices.ContainsFunc(r.Config.Mounts, func(a *criapi.Mount) bool { return a.Readonly }):
			t.Errorf("mount %+v", m)
		case path.IsAbs(m.SubPath) || m.SubPath != "" && !confined(m.SubPath):
			t.Errorf("sub path %q", m.SubPath)
		}
	}
	for _, list := range [][]string{c.MaskedPaths, c.ReadonlyPaths} {
		for _, p := range list {
			if !absolute(p) {
				t.Errorf("masked or read-only path %q", p)
			}
		}
	}
	nodes := slices.Concat(r.Devices, r.HostDevices, r.CDI.Devices)
	for _, d := range c.Devices {
		clean(t, "device", d.ContainerPath)
		if !slices.ContainsFunc(nodes, func(n spec.Device) bool { return n.HostPath == d.HostPath }) || d.ContainerPath == "/dev" || strings.Trim(d.Permissions, "rwm") != "" {
			t.Errorf("device %+v", d)
		}
	}
	if c.PID == spec.PIDTarget != (c.TargetContainer != "") || c.PID == "" || r.Sandbox.IDs != nil && c.PID == spec.PIDNode {
		t.Errorf("processes: %s of %q", c.PID, c.TargetContainer)
	}
	for file := range c.Resources.Unified {
		if !cgroupFile.MatchString(file) || strings.HasPrefix(file, "cgroup.") {
			t.Errorf("cgroup file %q", file)
		}
	}
	if c.Resources.AllDevices != c.Privileged || c.Privileged && !r.Pod.GetLinux().GetSecurityContext().GetPrivileged() {
		t.Errorf("privileged: %t, all devices: %t", c.Privileged, c.Resources.AllDevices)
	}
	if got.StopSignal < 1 || got.StopSignal > 64 {
		t.Errorf("stop signal %d", got.StopSignal)
	}
	checkProcess(t, r, c.Process)
}

func checkProcess(t *testing.T, r Request, p spec.Process) {
	t.Helper()
	clean(t, "working directory", p.Cwd)
	if len(p.Args) == 0 || p.Args[0] == "" {
		t.Errorf("arguments %q", p.Args)
	}
	names := map[string]bool{}
	for _, v := range p.Env {
		name, _, found := strings.Cut(v, "=")
		if !found || name == "" || names[name] {
			t.Errorf("variable %q", v)
		}
		names[name] = true
	}
	for _, text := range slices.Concat(p.Args, p.Env) {
		if strings.Contains(text, "\x00") || len(text) >= maxArgument {
			t.Errorf("%q cannot be handed to a program", text)
		}
	}
	known := r.Facts.OwnCapabilities
	if r.Sandbox.IDs != nil {
		known = r.Facts.AllCapabilities
	}
	k := p.Capabilities
	if (k.Bounding|k.Effective|k.Permitted|k.Inheritable|k.Ambient)&^known != 0 || k.Effective&^k.Permitted != 0 ||
		k.Permitted&^k.Bounding != 0 || k.Ambient&^(k.Permitted&k.Inheritable) != 0 {
		t.Errorf("capabilities %+v of %x", k, known)
	}
	if len(p.Seccomp)%8 != 0 || len(p.Seccomp) > 8*4096 {
		t.Errorf("seccomp filter of %d bytes", len(p.Seccomp))
	}
	if p.OOMScoreAdj == nil || *p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000 {
		t.Errorf("oom score %v", p.OOMScoreAdj)
	}
}

// checkImageOrdersNothing plans the same request for another image. All that
// concerns the node must be the same.
func checkImageOrdersNothing(t *testing.T, r Request, got spec.Container) {
	t.Helper()
	r.Image = Image{Entrypoint: []string{"/other"}, WorkingDir: "/"}
	r.Passwd, r.Group = nil, nil
	r.Config = proto.CloneOf(r.Config)
	if s := r.Config.GetLinux().GetSecurityContext(); s != nil { // the image would have to know the name
		s.RunAsUsername = ""
		s.RunAsGroup = nil
	}
	other, err := Container(r)
	if err != nil {
		sayWhat(t, err)
		return
	}
	for _, c := range []*spec.Container{&got, &other.Spec} {
		p := c.Process
		c.Process = spec.Process{Terminal: p.Terminal, Capabilities: p.Capabilities, NoNewPrivs: p.NoNewPrivs, Seccomp: p.Seccomp,
			SeccompFlags: p.SeccompFlags, Rlimits: p.Rlimits, OOMScoreAdj: p.OOMScoreAdj, Umask: p.Umask}
		c.Devices = slices.Clone(c.Devices)
		for i := range c.Devices {
			c.Devices[i].UID, c.Devices[i].GID = nil, nil // the user may be the image's
		}
	}
	if !reflect.DeepEqual(got, other.Spec) {
		t.Errorf("the image changes what concerns the node: %+v, with another one %+v", got, other.Spec)
	}
}

// checkSurvivesARestart writes the spec down as the records do. What holds
// bytes that are no text is kept apart there.
func checkSurvivesARestart(t *testing.T, c spec.Container) {
	t.Helper()
	c.Process.Env = nil
	text, err := json.Marshal(c)
	var back spec.Container
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if again, _ := json.Marshal(back); err != nil || string(again) != string(text) || !slices.Equal(back.Process.Args, c.Process.Args) ||
		back.Process.Cwd != c.Process.Cwd || len(back.Mounts) != len(c.Mounts) {
		t.Errorf("%+v is read back as %+v, %v", c, back, err)
	}
	for i := range back.Mounts {
		if back.Mounts[i].Source != c.Mounts[i].Source || back.Mounts[i].Target != c.Mounts[i].Target {
			t.Errorf("mount %+v is read back as %+v", c.Mounts[i], back.Mounts[i])
		}
	}
}

// checkExec lets the arguments of the container join it once more.
func checkExec(t *testing.T, r Request, first spec.Process) {
	t.Helper()
	for _, terminal := range []bool{false, true} {
		p, err := Exec(first, r.Config.Command, terminal)
		if err != nil {
			sayWhat(t, err)
			continue
		}
		checkProcess(t, r, p)
	}
}
