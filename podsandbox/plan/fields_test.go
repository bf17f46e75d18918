package plan

import (
	"reflect"
	"slices"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// What is said of the sandbox's own processes is checked although there are
// none of the user's.
func TestUserOfASandboxIsCheckedAndChangesNothing(t *testing.T) {
	plain, err := Sandbox("s1", pod(), facts)
	if err != nil {
		t.Fatal(err)
	}
	whole := func() *criapi.PodSandboxConfig {
		c := pod()
		s := c.Linux.SecurityContext
		s.RunAsUser, s.RunAsGroup = &criapi.Int64Value{Value: 1000}, &criapi.Int64Value{Value: 1000}
		s.ReadonlyRootfs, s.SupplementalGroups, s.SupplementalGroupsPolicy = true, []int64{7}, criapi.SupplementalGroupsPolicy_Strict
		return c
	}
	got, err := Sandbox("s1", whole(), facts)
	if err != nil || got.Hostname != plain.Hostname || got.Cgroup != plain.Cgroup || got.SharedPID != plain.SharedPID {
		t.Errorf("%+v, %v; want %+v", got, err, plain)
	}
	r := request()
	r.Pod = whole()
	p, err := Container(r)
	if err != nil || p.User.UID != 33 || p.Spec.ReadonlyRootfs {
		t.Errorf("a container of that pod: user %+v, read-only %t, %v; want its own", p.User, p.Spec.ReadonlyRootfs, err)
	}
	for name, c := range map[string]struct {
		spoil        func(*criapi.LinuxSandboxSecurityContext)
		field, value string
	}{
		"user":   {func(s *criapi.LinuxSandboxSecurityContext) { s.RunAsUser.Value = -1 }, "config.linux.security_context.run_as_user", "-1"},
		"group":  {func(s *criapi.LinuxSandboxSecurityContext) { s.RunAsGroup.Value = 1 << 31 }, "config.linux.security_context.run_as_group", "2147483648"},
		"groups": {func(s *criapi.LinuxSandboxSecurityContext) { s.SupplementalGroups = []int64{5, -7} }, "config.linux.security_context.supplemental_groups[1]", "-7"},
		"policy": {func(s *criapi.LinuxSandboxSecurityContext) { s.SupplementalGroupsPolicy = 9 }, "config.linux.security_context.supplemental_groups_policy", "9"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := whole()
			c.spoil(cfg.Linux.SecurityContext)
			_, err := Sandbox("s1", cfg, facts)
			refused(t, err, c.field, c.value)
		})
	}
}

func TestPodTargetsNobody(t *testing.T) {
	cfg := pod()
	cfg.Linux.SecurityContext.NamespaceOptions.TargetId = "c0"
	_, err := Sandbox("s1", cfg, facts)
	refused(t, err, "config.linux.security_context.namespace_options.target_id", "c0")
}

func TestHostIPWithAZoneIsRefused(t *testing.T) {
	cfg := pod()
	cfg.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 80}, {ContainerPort: 81, HostPort: 81, HostIp: "fe80::1%eth0"}}
	_, err := Sandbox("s1", cfg, facts)
	refused(t, err, "config.port_mappings[1].host_ip", "fe80::1%eth0")
}

// A container is in its pod's network, IPC and users. One that asks for less
// separation than it gets would not work, one that asks for more would be
// deceived: both are refused.
func TestContainerSharesTheNamespacesOfItsPod(t *testing.T) {
	ids := func(host uint32) []*criapi.IDMapping {
		return []*criapi.IDMapping{{HostId: host, Length: 65536}}
	}
	users := func(mode criapi.NamespaceMode, m []*criapi.IDMapping) *criapi.NamespaceOption {
		return &criapi.NamespaceOption{Pid: alone, UsernsOptions: &criapi.UserNamespace{Mode: mode, Uids: m, Gids: m}}
	}
	host := spec.Sandbox{HostNetwork: true, HostIPC: true}
	mapped := spec.Sandbox{IDs: &spec.IDMapping{Host: 65536, Length: 65536}}
	for name, c := range map[string]struct {
		sandbox      spec.Sandbox
		asked        *criapi.NamespaceOption
		field, value string // "": accepted
	}{
		"nothing asked":             {host, nil, "", ""},
		"POD fits the node's":       {host, &criapi.NamespaceOption{Pid: alone}, "", ""},
		"NODE as the pod":           {host, &criapi.NamespaceOption{Pid: alone, Network: node, Ipc: node}, "", ""},
		"NODE beyond the pod":       {spec.Sandbox{}, &criapi.NamespaceOption{Pid: alone, Network: node}, "config.linux.security_context.namespace_options.network", "NODE"},
		"IPC beyond the pod":        {spec.Sandbox{}, &criapi.NamespaceOption{Pid: alone, Ipc: node}, "config.linux.security_context.namespace_options.ipc", "NODE"},
		"network for itself":        {spec.Sandbox{}, &criapi.NamespaceOption{Pid: alone, Network: alone}, "config.linux.security_context.namespace_options.network", "CONTAINER"},
		"IPC of a target":           {spec.Sandbox{}, &criapi.NamespaceOption{Pid: alone, Ipc: target}, "config.linux.security_context.namespace_options.ipc", "TARGET"},
		"target without the mode":   {spec.Sandbox{}, &criapi.NamespaceOption{Pid: alone, TargetId: "c0"}, "config.linux.security_context.namespace_options.target_id", "c0"},
		"users said to be the same": {mapped, users(shared, ids(65536)), "", ""},
		"users not spoken of":       {mapped, &criapi.NamespaceOption{Pid: alone}, "", ""},
		"the node's users":          {spec.Sandbox{}, users(node, nil), "", ""},
		"users of another mapping":  {mapped, users(shared, ids(131072)), "config.linux.security_context.namespace_options.userns_options.uids", "0 131072 65536"},
		"users of the node":         {mapped, users(node, nil), "config.linux.security_context.namespace_options.userns_options.mode", "NODE"},
		"users the pod has not":     {spec.Sandbox{}, users(shared, ids(65536)), "config.linux.security_context.namespace_options.userns_options.uids", "0 65536 65536"},
		"users of the container":    {mapped, users(alone, nil), "config.linux.security_context.namespace_options.userns_options.mode", "CONTAINER"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request()
			r.Sandbox, r.Sandbox.ID = c.sandbox, "s1"
			r.security().NamespaceOptions = c.asked
			_, err := Container(r)
			if c.field != "" {
				refused(t, err, c.field, c.value)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMappingOfAMountIsThatOfThePod(t *testing.T) {
	ids := []*criapi.IDMapping{{HostId: 65536, Length: 65536}}
	for name, sandbox := range map[string]*spec.IDMapping{
		"pod without users":      nil,
		"pod with other users":   {Host: 131072, Length: 65536},
		"pod with fewer users":   {Host: 65536, Length: 1000},
		"pod with these users":   {Host: 65536, Length: 65536},
		"image with these users": {Host: 65536, Length: 65536},
	} {
		t.Run(name, func(t *testing.T) {
			r := request()
			r.Sandbox.IDs = sandbox
			m := &criapi.Mount{ContainerPath: "/data", HostPath: "/srv", UidMappings: ids, GidMappings: ids}
			if name == "image with these users" {
				m.HostPath, m.Readonly, m.Image = "", true, &criapi.ImageSpec{Image: "model"}
			}
			r.Config.Mounts = []*criapi.Mount{m}
			p, err := Container(r)
			if sandbox == nil || *sandbox != (spec.IDMapping{Host: 65536, Length: 65536}) {
				refused(t, err, "config.mounts[0].uidMappings", "0 65536 65536")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range p.Spec.Mounts {
				if m.Target == "/data" && (m.IDs == nil || *m.IDs != *sandbox) {
					t.Errorf("the mount has the mapping %v", m.IDs)
				}
			}
		})
	}
}

// The folder that no log may leave is compared with the log's path.
func TestRootOfALogIsCleaned(t *testing.T) {
	r := request()
	r.Pod.LogDirectory = "/var/log/../log//pods/"
	r.Config.LogPath = "app/0.log"
	p, err := Container(r)
	if err != nil || p.Spec.LogPath != "/var/log/pods/app/0.log" || p.Spec.LogRoot != "/var/log/pods" {
		t.Errorf("log %q below %q, %v", p.Spec.LogPath, p.Spec.LogRoot, err)
	}
}

func TestExecHasTheRightsOfTheFirstProcess(t *testing.T) {
	r := request()
	kubelet(&r)
	p, err := Container(r)
	if err != nil {
		t.Fatal(err)
	}
	first := p.Spec.Process
	got, err := Exec(first, []string{"sh"}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := first
	want.Args, want.Terminal, want.Env = []string{"sh"}, true, append(slices.Clone(first.Env), "TERM=xterm")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if !got.NoNewPrivs || len(got.Seccomp) == 0 || *got.OOMScoreAdj != 999 || got.User.UID != 1000 || len(got.User.Groups) < 2 {
		t.Errorf("the container has not what is to be passed on: %+v", got)
	}
}

// What is asked for arrives in the spec, one field at a time.
func TestEachFieldOfASecurityContextAndOfLimitsIsInTheSpec(t *testing.T) {
	for name, c := range map[string]struct {
		ask  func(*Request)
		want func(spec.Container) bool
	}{
		"run_as_group": {func(r *Request) {
			r.security().RunAsUser, r.security().RunAsGroup = &criapi.Int64Value{Value: 1000}, &criapi.Int64Value{Value: 2000}
		}, func(c spec.Container) bool { return c.Process.User.UID == 1000 && c.Process.User.GID == 2000 }},
		"apparmor":        {func(r *Request) { r.AppArmor = "mine" }, func(c spec.Container) bool { return c.Process.AppArmor == "mine" }},
		"selinux":         {func(r *Request) { r.SELinux = "u:r:t:s0" }, func(c spec.Container) bool { return c.Process.SELinux == "u:r:t:s0" }},
		"readonly_rootfs": {func(r *Request) { r.security().ReadonlyRootfs = true }, func(c spec.Container) bool { return c.ReadonlyRootfs }},
		"masked_paths": {func(r *Request) { r.security().MaskedPaths = []string{"/m"} },
			func(c spec.Container) bool { return slices.Equal(c.MaskedPaths, []string{"/m"}) }},
		"readonly_paths": {func(r *Request) { r.security().ReadonlyPaths = []string{"/r"} },
			func(c spec.Container) bool { return slices.Equal(c.ReadonlyPaths, []string{"/r"}) }},
		"cpuset_cpus": {limits(&criapi.LinuxContainerResources{CpusetCpus: "0-1"}), func(c spec.Container) bool { return c.Resources.CpusetCpus == "0-1" }},
		"cpuset_mems": {limits(&criapi.LinuxContainerResources{CpusetMems: "0"}), func(c spec.Container) bool { return c.Resources.CpusetMems == "0" }},
	} {
		t.Run(name, func(t *testing.T) {
			r := request()
			if got, err := Container(r); err != nil || c.want(got.Spec) {
				t.Errorf("unasked it is there: %+v, %v", got.Spec, err)
			}
			r = request()
			c.ask(&r)
			if got, err := Container(r); err != nil || !c.want(got.Spec) {
				t.Errorf("%+v, %v; want what was asked for", got.Spec, err)
			}
		})
	}
}

func limits(l *criapi.LinuxContainerResources) func(*Request) {
	return func(r *Request) { r.Config.Linux.Resources = l }
}
