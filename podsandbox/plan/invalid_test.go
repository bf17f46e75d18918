package plan

//lint:file-ignore SA1019 the deprecated fields are in the API and must be checked too.

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

const (
	node   = criapi.NamespaceMode_NODE
	target = criapi.NamespaceMode_TARGET
	shared = criapi.NamespaceMode_POD
	alone  = criapi.NamespaceMode_CONTAINER
)

func users(c *criapi.PodSandboxConfig, mode criapi.NamespaceMode, ids ...*criapi.IDMapping) {
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: mode, Uids: ids, Gids: ids}
}

// Each bad pod is refused by the name of the field and its value.
func TestBadPod(t *testing.T) {
	type C = *criapi.PodSandboxConfig
	options := func(c C) *criapi.NamespaceOption { return c.Linux.SecurityContext.NamespaceOptions }
	ids := func(container, host, length uint32) *criapi.IDMapping {
		return &criapi.IDMapping{ContainerId: container, HostId: host, Length: length}
	}
	sysctl := func(name, value string) func(C) {
		return func(c C) { c.Linux.Sysctls = map[string]string{name: value} }
	}
	for name, c := range map[string]struct {
		spoil        func(C)
		field, value string
	}{
		"no metadata":            {func(c C) { c.Metadata = nil }, "config.metadata.name", ""},
		"no namespace":           {func(c C) { c.Metadata.Namespace = "" }, "config.metadata.namespace", ""},
		"no uid":                 {func(c C) { c.Metadata.Uid = "" }, "config.metadata.uid", ""},
		"for windows":            {func(c C) { c.Windows = &criapi.WindowsPodSandboxConfig{} }, "config.windows", ""},
		"relative log folder":    {func(c C) { c.LogDirectory = "logs" }, "config.log_directory", "logs"},
		"long hostname":          {func(c C) { c.Hostname = strings.Repeat("h", 65) }, "config.hostname", "hhhh"},
		"two hostnames":          {func(c C) { c.Hostname = "a\nb" }, "config.hostname", `a\nb`},
		"two servers in one":     {func(c C) { c.DnsConfig = &criapi.DNSConfig{Servers: []string{"1.1.1.1\nnameserver 2.2.2.2"}} }, "config.dns_config.servers[0]", "2.2.2.2"},
		"empty option":           {func(c C) { c.DnsConfig = &criapi.DNSConfig{Options: []string{""}} }, "config.dns_config.options[0]", ""},
		"port of no container":   {func(c C) { c.PortMappings = []*criapi.PortMapping{{HostPort: 80}} }, "config.port_mappings[0].container_port", "0"},
		"port too large":         {func(c C) { c.PortMappings = []*criapi.PortMapping{{ContainerPort: 1, HostPort: 65536}} }, "config.port_mappings[0].host_port", "65536"},
		"port of no address":     {func(c C) { c.PortMappings = []*criapi.PortMapping{{ContainerPort: 1, HostIp: "x"}} }, "config.port_mappings[0].host_ip", "x"},
		"unknown protocol":       {func(c C) { c.PortMappings = []*criapi.PortMapping{{ContainerPort: 1, Protocol: 9}} }, "config.port_mappings[0].protocol", "9"},
		"group without user":     {func(c C) { c.Linux.SecurityContext.RunAsGroup = &criapi.Int64Value{Value: 5} }, "config.linux.security_context.run_as_group", "5"},
		"network of a container": {func(c C) { options(c).Network = alone }, "config.linux.security_context.namespace_options.network", "CONTAINER"},
		"ipc of a target":        {func(c C) { options(c).Ipc = target }, "config.linux.security_context.namespace_options.ipc", "TARGET"},
		"pid of a target":        {func(c C) { options(c).Pid = target }, "config.linux.security_context.namespace_options.pid", "TARGET"},
		"users of a container":   {func(c C) { users(c, alone) }, "config.linux.security_context.namespace_options.userns_options.mode", "CONTAINER"},
		"users of a target":      {func(c C) { users(c, target) }, "config.linux.security_context.namespace_options.userns_options.mode", "TARGET"},
		"two mappings":           {func(c C) { users(c, shared, ids(0, 1, 1), ids(1, 2, 1)) }, "config.linux.security_context.namespace_options.userns_options.uids", "2 mappings"},
		"no mapping":             {func(c C) { users(c, shared) }, "config.linux.security_context.namespace_options.userns_options.uids", "0 mappings"},
		"no mapping of 0":        {func(c C) { users(c, shared, ids(1, 1000, 1000)) }, "config.linux.security_context.namespace_options.userns_options.uids", "1 1000 1000"},
		"empty mapping":          {func(c C) { users(c, shared, ids(0, 1000, 0)) }, "config.linux.security_context.namespace_options.userns_options.uids", "0 1000 0"},
		"mapping beyond the end": {func(c C) { users(c, shared, ids(0, 1<<31, 1<<31)) }, "config.linux.security_context.namespace_options.userns_options.uids", "0 2147483648 2147483648"},
		"mapping of the node":    {func(c C) { users(c, node, ids(0, 1, 1)) }, "config.linux.security_context.namespace_options.userns_options.mode", "NODE"},
		"uids are not gids": {func(c C) {
			users(c, shared, ids(0, 1000, 10))
			options(c).UsernsOptions.Gids = []*criapi.IDMapping{ids(0, 2000, 10)}
		}, "config.linux.security_context.namespace_options.userns_options.gids", "0 2000 10"},
		"users on the node's network": {func(c C) { users(c, shared, ids(0, 1000, 10)); options(c).Network = node }, "config.linux.security_context.namespace_options.network", "NODE"},
		"users among the node's":      {func(c C) { users(c, shared, ids(0, 1000, 10)); options(c).Pid = node }, "config.linux.security_context.namespace_options.pid", "NODE"},
		"zero in the parent":          {func(c C) { c.Linux.CgroupParent = "/a\x00b" }, "config.linux.cgroup_parent", `/a\x00b`},
		"zero in the log folder":      {func(c C) { c.LogDirectory = "/a\x00b" }, "config.log_directory", `/a\x00b`},
		"parent outside":              {func(c C) { c.Linux.CgroupParent = "/a/../../b" }, "config.linux.cgroup_parent", "/a/../../b"},
		"level of SELinux":            {func(c C) { c.Linux.SecurityContext.SelinuxOptions = &criapi.SELinuxOption{Level: "gibberish"} }, "config.linux.security_context.selinux_options.level", "gibberish"},
		"kind of the pod's seccomp":   {func(c C) { c.Linux.SecurityContext.Seccomp = &criapi.SecurityProfile{ProfileType: 9} }, "config.linux.security_context.seccomp.profile_type", "9"},
		"the pod's old seccomp":       {func(c C) { c.Linux.SecurityContext.SeccompProfilePath = "mine" }, "config.linux.security_context.seccomp_profile_path", "mine"},
		"kind of the pod's AppArmor":  {func(c C) { c.Linux.SecurityContext.Apparmor = &criapi.SecurityProfile{ProfileType: 9} }, "config.linux.security_context.apparmor.profile_type", "9"},
		"the pod's AppArmor profile":  {func(c C) { c.Linux.SecurityContext.Apparmor = &criapi.SecurityProfile{ProfileType: 2} }, "config.linux.security_context.apparmor.localhost_ref", ""},
		"sysctl of the node":          {sysctl("kernel.core_pattern", "|/bin/sh"), "config.linux.sysctls[kernel.core_pattern]", "|/bin/sh"},
		"sysctl outside":              {sysctl("net.ipv4../../../kernel/core_pattern", "x"), "config.linux.sysctls[net.ipv4../../../kernel/core_pattern]", "x"},
		"sysctl of two lines":         {sysctl("net.core.somaxconn", "1\n2"), "config.linux.sysctls[net.core.somaxconn]", `1\n2`},
		"sysctl without parts":        {sysctl("kernel", "1"), "config.linux.sysctls[kernel]", "1"},
		"sysctl that looks like ipc":  {sysctl("kernel.shmmax.x", "1"), "config.linux.sysctls[kernel.shmmax.x]", "1"},
		"sysctl with an equals sign":  {sysctl("net.core.somaxconn=1+kernel.core_pattern", "x"), "config.linux.sysctls[net.core.somaxconn=1+kernel.core_pattern]", "x"},
		"sysctl of the node's network": {func(c C) { options(c).Network = node; sysctl("net.core.somaxconn", "1")(c) },
			"config.linux.sysctls[net.core.somaxconn]", "1"},
		"sysctl of the node's ipc": {func(c C) { options(c).Ipc = node; sysctl("kernel.sem", "1 2 3 4")(c) }, "config.linux.sysctls[kernel.sem]", "1 2 3 4"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := pod()
			c.spoil(cfg)
			_, err := Sandbox("s1", cfg, facts)
			refused(t, err, c.field, c.value)
		})
	}
}

func refused(t *testing.T, err error, field, value string) {
	t.Helper()
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want an invalid %s %q", err, field, value)
		return
	}
	text := strings.TrimPrefix(err.Error(), "ImageVolumeMountFailed: ")
	rest, ok := strings.CutPrefix(text, field)
	if !ok || !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, ": ") || !strings.Contains(rest, value) {
		t.Errorf("got %v, want an error that begins with the field %s and tells of %q", err, field, value)
	}
}

// Each bad container is refused by the name of the field and its value.
func TestBadContainer(t *testing.T) {
	type R = *Request
	mount := func(m *criapi.Mount) func(R) {
		return func(r R) {
			if m.ContainerPath == "" {
				m.ContainerPath = "/data"
			}
			r.Config.Mounts = []*criapi.Mount{{ContainerPath: "/first", HostPath: "/first"}, m}
		}
	}
	resources := func(l *criapi.LinuxContainerResources) func(R) {
		return func(r R) { r.Config.Linux.Resources = l }
	}
	caps := func(c *criapi.Capability) func(R) { return func(r R) { r.security().Capabilities = c } }
	device := func(host, container, permissions string) func(R) {
		return func(r R) {
			r.Devices = []spec.Device{{HostPath: host, ContainerPath: container, Permissions: permissions}}
		}
	}
	image := &criapi.ImageSpec{Image: "model"}
	for name, c := range map[string]struct {
		spoil        func(R)
		field, value string
	}{
		"no name":              {func(r R) { r.Config.Metadata.Name = "" }, "config.metadata.name", ""},
		"for windows":          {func(r R) { r.Config.Windows = &criapi.WindowsContainerConfig{} }, "config.windows", ""},
		"no program":           {func(r R) { r.Image.Entrypoint, r.Image.Cmd = nil, nil }, "config.command", "nothing to run"},
		"empty program":        {func(r R) { r.Config.Command = []string{""} }, "config.command[0]", ""},
		"zero in an argument":  {func(r R) { r.Config.Args = []string{"a\x00b"} }, "config.args[0]", `a\x00b`},
		"no name of variable":  {func(r R) { r.Config.Envs = []*criapi.KeyValue{{Value: []byte("x")}} }, "config.envs[0].key", ""},
		"equals in a name":     {func(r R) { r.Config.Envs = []*criapi.KeyValue{{Key: "A=B"}} }, "config.envs[0].key", "A=B"},
		"zero in a value":      {func(r R) { r.Config.Envs = []*criapi.KeyValue{{Key: "A", Value: []byte{0}}} }, "config.envs[0].value", "A"},
		"log above":            {func(r R) { r.Config.LogPath = "../x" }, "config.log_path", "../x"},
		"log anywhere":         {func(r R) { r.Config.LogPath = "/etc/cron.d/x" }, "config.log_path", "/etc/cron.d/x"},
		"log is the folder":    {func(r R) { r.Config.LogPath = "." }, "config.log_path", "."},
		"signal of the image":  {func(r R) { r.Image.StopSignal = "SIGNOPE" }, "image config StopSignal", "SIGNOPE"},
		"unknown signal":       {func(r R) { r.Config.StopSignal = 999 }, "config.stop_signal", "999"},
		"privileged alone":     {func(r R) { r.security().Privileged = true }, "config.linux.security_context.privileged", "true"},
		"relative mask":        {func(r R) { r.security().MaskedPaths = []string{"/a", "proc"} }, "config.linux.security_context.masked_paths[1]", "proc"},
		"relative readonly":    {func(r R) { r.security().ReadonlyPaths = []string{"proc"} }, "config.linux.security_context.readonly_paths[0]", "proc"},
		"user and name":        {func(r R) { r.security().RunAsUser = &criapi.Int64Value{Value: 5}; r.security().RunAsUsername = "web" }, "config.linux.security_context.run_as_username", "web"},
		"group alone":          {func(r R) { r.security().RunAsGroup = &criapi.Int64Value{Value: 5} }, "config.linux.security_context.run_as_group", "5"},
		"negative user":        {func(r R) { r.security().RunAsUser = &criapi.Int64Value{Value: -1} }, "config.linux.security_context.run_as_user", "-1"},
		"unknown user":         {func(r R) { r.security().RunAsUsername = "nemo" }, "config.linux.security_context.run_as_username", "nemo"},
		"impossible USER":      {func(r R) { r.Image.User = "4294967296" }, "image config User", "4294967296"},
		"groups policy":        {func(r R) { r.security().SupplementalGroupsPolicy = 7 }, "config.linux.security_context.supplemental_groups_policy", "7"},
		"negative group":       {func(r R) { r.security().SupplementalGroups = []int64{-7} }, "config.linux.security_context.supplemental_groups[0]", "-7"},
		"ambient unknown":      {caps(&criapi.Capability{AddAmbientCapabilities: []string{"FLY"}}), "config.linux.security_context.capabilities.add_ambient_capabilities", "FLY"},
		"unknown capability":   {caps(&criapi.Capability{AddCapabilities: []string{"FLY"}}), "config.linux.security_context.capabilities.add_capabilities", "FLY"},
		"drop of unknown":      {caps(&criapi.Capability{DropCapabilities: []string{"FLY"}}), "config.linux.security_context.capabilities.drop_capabilities", "FLY"},
		"processes of the pod": {func(r R) { r.security().NamespaceOptions.Pid = shared }, "config.linux.security_context.namespace_options.pid", "POD"},
		"target of nobody":     {func(r R) { r.security().NamespaceOptions.Pid = target }, "config.linux.security_context.namespace_options.target_id", ""},
		"node's processes in a user namespace": {func(r R) {
			r.Sandbox.IDs = &spec.IDMapping{Length: 1}
			r.security().NamespaceOptions.Pid = node
		}, "config.linux.security_context.namespace_options.pid", "NODE"},

		"mount nowhere":         {mount(&criapi.Mount{ContainerPath: "data", HostPath: "/x"}), "config.mounts[1].container_path", "data"},
		"mount on the root":     {mount(&criapi.Mount{ContainerPath: "/a/..", HostPath: "/x"}), "config.mounts[1].container_path", "/a/.."},
		"mount of nothing":      {mount(&criapi.Mount{}), "config.mounts[1].host_path", ""},
		"mount of a relative":   {mount(&criapi.Mount{HostPath: "x"}), "config.mounts[1].host_path", "x"},
		"unknown propagation":   {mount(&criapi.Mount{HostPath: "/x", Propagation: 5}), "config.mounts[1].propagation", "5"},
		"unknown option":        {mount(&criapi.Mount{HostPath: "/x", MountOptions: []string{"noexec", "dev"}}), "config.mounts[1].mount_options[1]", "dev"},
		"recursive but not ro":  {mount(&criapi.Mount{HostPath: "/x", RecursiveReadOnly: true}), "config.mounts[1].recursive_read_only", "true"},
		"recursive and slave":   {mount(&criapi.Mount{HostPath: "/x", Readonly: true, RecursiveReadOnly: true, Propagation: 1}), "config.mounts[1].recursive_read_only", "HOST_TO_CONTAINER"},
		"recursive and shared":  {mount(&criapi.Mount{HostPath: "/x", Readonly: true, RecursiveReadOnly: true, Propagation: 2}), "config.mounts[1].recursive_read_only", "BIDIRECTIONAL"},
		"half a mapping":        {mount(&criapi.Mount{HostPath: "/x", UidMappings: []*criapi.IDMapping{{Length: 1}}}), "config.mounts[1].gidMappings", "0 mappings"},
		"image and folder":      {mount(&criapi.Mount{HostPath: "/x", Readonly: true, Image: image}), "config.mounts[1].host_path", "/x"},
		"writable image":        {mount(&criapi.Mount{Image: image}), "config.mounts[1].readonly", "false"},
		"image that propagates": {mount(&criapi.Mount{Readonly: true, Image: image, Propagation: 1}), "config.mounts[1].propagation", "HOST_TO_CONTAINER"},
		"path above the image":  {mount(&criapi.Mount{Readonly: true, Image: image, ImageSubPath: "a/../../b"}), "config.mounts[1].image_sub_path", "a/../../b"},
		"absolute path in it":   {mount(&criapi.Mount{Readonly: true, Image: image, ImageSubPath: "/a"}), "config.mounts[1].image_sub_path", "/a"},

		"zero in a mount":         {mount(&criapi.Mount{ContainerPath: "/a\x00b", HostPath: "/x"}), "config.mounts[1].container_path", `/a\x00b`},
		"zero in a source":        {mount(&criapi.Mount{HostPath: "/a\x00b"}), "config.mounts[1].host_path", `/a\x00b`},
		"zero in a mask":          {func(r R) { r.security().MaskedPaths = []string{"/a\x00b"} }, "config.linux.security_context.masked_paths[0]", `/a\x00b`},
		"zero in a folder":        {func(r R) { r.Config.WorkingDir = "a\x00b" }, "config.working_dir", `a\x00b`},
		"zero in the image's":     {func(r R) { r.Image.WorkingDir = "a\x00b" }, "image config WorkingDir", `a\x00b`},
		"variable without end":    {func(r R) { r.Config.Envs = []*criapi.KeyValue{{Key: "A", Value: bytes.Repeat([]byte("a"), 128<<10)}} }, "config.envs[0].value", "131071"},
		"device without use":      {device("/dev/x", "/dev/x", ""), "config.devices[0].permissions", ""},
		"device as /dev":          {device("/dev/x", "/dev/", "r"), "config.devices[0].container_path", "/dev"},
		"device as the root":      {device("/dev/x", "/", "r"), "config.devices[0].container_path", "/"},
		"device among terminals":  {device("/dev/x", "/dev/pts/0", "r"), "config.devices[0].container_path", "/dev/pts/0"},
		"device in shared memory": {device("/dev/x", "/dev/a/../shm", "r"), "config.devices[0].container_path", "/dev/shm"},
		"device as a descriptor":  {device("/dev/x", "/dev/fd/3", "r"), "config.devices[0].container_path", "/dev/fd/3"},
		"another null":            {device("/dev/x", "/dev/null", "r"), "config.devices[0].container_path", "/dev/null"},
		"device in a device": {func(r R) {
			r.Devices = []spec.Device{{HostPath: "/dev/x", ContainerPath: "/dev/a", Permissions: "r"}, {HostPath: "/dev/x", ContainerPath: "/dev/a/b", Permissions: "r"}}
		}, "config.devices[1].container_path", "/dev/a/b"},
		"device around a device": {func(r R) {
			device("/dev/x", "/dev/a/b", "r")(r)
			r.CDI.Devices = []spec.Device{{HostPath: "/dev/x", ContainerPath: "/dev/a"}}
		}, "config.CDI_devices", "/dev/a"},
		"device in null":           {device("/dev/x", "/dev/null/x", "r"), "config.devices[0].container_path", "/dev/null/x"},
		"zero in a device":         {device("/dev/x", "/dev/a\x00b", "r"), "config.devices[0].container_path", `/dev/a\x00b`},
		"CDI device as a terminal": {func(r R) { r.CDI.Devices = []spec.Device{{HostPath: "/dev/x", ContainerPath: "/dev/pts/0"}} }, "config.CDI_devices", "/dev/pts/0"},
		"CDI device with an owner elsewhere": {func(r R) {
			r.CDI.Devices = []spec.Device{{HostPath: "/dev/x", ContainerPath: "/x", UID: new(uint32)}}
		}, "config.CDI_devices", "/x"},
		"CDI device from nothing elsewhere": {func(r R) {
			r.CDI.Devices = []spec.Device{{HostPath: "/dev/x", ContainerPath: "/x", Kind: spec.Pipe}}
		}, "config.CDI_devices", "/x"},
		"device nowhere": {func(r R) { r.Devices = []spec.Device{{HostPath: "/dev/null", ContainerPath: "null"}} }, "config.devices[0].container_path", "null"},
		"device permissions": {func(r R) {
			r.Devices = []spec.Device{{HostPath: "/dev/null", ContainerPath: "/dev/x", Permissions: "rx"}}
		}, "config.devices[0].permissions", "rx"},

		"negative shares":     {resources(&criapi.LinuxContainerResources{CpuShares: -1}), "config.linux.resources.cpu_shares", "-1"},
		"negative period":     {resources(&criapi.LinuxContainerResources{CpuPeriod: -1}), "config.linux.resources.cpu_period", "-1"},
		"negative memory":     {resources(&criapi.LinuxContainerResources{MemoryLimitInBytes: -5}), "config.linux.resources.memory_limit_in_bytes", "-5"},
		"swap below memory":   {resources(&criapi.LinuxContainerResources{MemoryLimitInBytes: 20, MemorySwapLimitInBytes: 10}), "config.linux.resources.memory_swap_limit_in_bytes", "10"},
		"score out of range":  {resources(&criapi.LinuxContainerResources{OomScoreAdj: 1001}), "config.linux.resources.oom_score_adj", "1001"},
		"no list of CPUs":     {resources(&criapi.LinuxContainerResources{CpusetCpus: "all"}), "config.linux.resources.cpuset_cpus", "all"},
		"no list of nodes":    {resources(&criapi.LinuxContainerResources{CpusetMems: "0,"}), "config.linux.resources.cpuset_mems", "0,"},
		"page size":           {resources(&criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2M"}}}), "config.linux.resources.hugepage_limits[0].page_size", "2M"},
		"file of no limit":    {resources(&criapi.LinuxContainerResources{Unified: map[string]string{"cgroup.procs": "1"}}), "config.linux.resources.unified[cgroup.procs]", "1"},
		"file in a folder":    {resources(&criapi.LinuxContainerResources{Unified: map[string]string{"a/memory.max": "1"}}), "config.linux.resources.unified[a/memory.max]", "1"},
		"file outside":        {resources(&criapi.LinuxContainerResources{Unified: map[string]string{"../memory.max": "1"}}), "config.linux.resources.unified[../memory.max]", "1"},
		"level of SELinux":    {func(r R) { r.security().SelinuxOptions = &criapi.SELinuxOption{Level: "s0:c1:c2:c3"} }, "config.linux.security_context.selinux_options.level", "s0:c1:c2:c3"},
		"type of SELinux":     {func(r R) { r.security().SelinuxOptions = &criapi.SELinuxOption{Type: "a:b"} }, "config.linux.security_context.selinux_options.type", "a:b"},
		"kind of seccomp":     {func(r R) { r.security().Seccomp = &criapi.SecurityProfile{ProfileType: 9} }, "config.linux.security_context.seccomp.profile_type", "9"},
		"old kind of seccomp": {func(r R) { r.security().SeccompProfilePath = "mine" }, "config.linux.security_context.seccomp_profile_path", "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request()
			c.spoil(&r)
			for _, d := range r.Devices {
				r.Config.Devices = append(r.Config.Devices, &criapi.Device{HostPath: d.HostPath, ContainerPath: d.ContainerPath, Permissions: d.Permissions})
			}
			_, err := Container(r)
			refused(t, err, c.field, c.value)
			volume := errors.As(err, new(*ImageVolumeError))
			if wants := len(r.Config.Mounts) > 1 && r.Config.Mounts[1].Image != nil; volume != wants {
				t.Errorf("error of an image volume is %t, want %t", volume, wants)
			}
		})
	}
}

func TestWhatIsAllowedThoughOdd(t *testing.T) {
	for name, change := range map[string]func(*Request){
		"SELinux level, no SELinux": func(r *Request) {
			r.security().SelinuxOptions = &criapi.SELinuxOption{User: "u", Role: "r", Type: "t", Level: "s0-s15:c0.c1023"}
		},
		"log without a folder": func(r *Request) { r.Pod.LogDirectory = ""; r.Config.LogPath = "x.log" },
		"cpu list":             func(r *Request) { r.Config.Linux.Resources = &criapi.LinuxContainerResources{CpusetCpus: "0-3,7"} },
	} {
		r := request()
		change(&r)
		if _, err := Container(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The kubelet sends image_sub_path with parts of volumes that are no images.
func TestSubPathOfAFolderIsTheKubeletsMatter(t *testing.T) {
	r := request()
	r.Config.Mounts = []*criapi.Mount{{ContainerPath: "/data", HostPath: "/pods/subpaths/0", ImageSubPath: "below/here"}}
	c, err := Container(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Spec.Mounts {
		if m.Target == "/data" && m.Source == "/pods/subpaths/0" && m.SubPath == "" {
			return
		}
	}
	t.Errorf("no mount of all of host_path in %+v", c.Spec.Mounts)
}

func TestOnlyLoopback(t *testing.T) {
	for text, want := range map[string]bool{
		"nameserver 127.0.0.53\noptions edns0\n":       true,
		"nameserver 127.0.0.1\nnameserver ::1\n":       true,
		"nameserver 127.0.0.53\nnameserver 10.0.0.1\n": false,
		"# nameserver 127.0.0.1\n":                     false,
		"nameserver host\n":                            false,
		"":                                             false,
	} {
		if got := OnlyLoopback([]byte(text)); got != want {
			t.Errorf("OnlyLoopback(%q) is %t, want %t", text, got, want)
		}
	}
}

func FuzzSysctlStaysBelowItsFolder(f *testing.F) {
	for _, seed := range []string{"net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/x", "kernel.sem", "fs.mqueue.../x", "net...", "net.ipv4/../../kernel"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := sysctls(map[string]string{name: "1"}, spec.Sandbox{})
		if err != nil {
			return
		}
		for path := range got {
			for part := range strings.SplitSeq(path, "/") {
				if part == "" || strings.Trim(part, ".") == "" {
					t.Errorf("sysctl %q becomes the path %q", name, path)
				}
			}
			if !strings.HasPrefix(path, "net/") && !strings.HasPrefix(path, "fs/mqueue/") && !ipcSysctls[path] {
				t.Errorf("sysctl %q becomes the path %q", name, path)
			}
		}
	})
}
