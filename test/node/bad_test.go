package node

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// bad is a request that must be refused: with this code, in words that hold the
// field and the value, and with nothing left behind.
type bad struct {
	name string
	do   func() error
	code codes.Code
	says []string
}

func (d *daemon) refuses(t *testing.T, table []bad) {
	t.Helper()
	for _, c := range table {
		t.Run(c.name, func(t *testing.T) {
			d.enter(t)
			before := count(t, d)
			err := c.do()
			if err == nil {
				t.Error("no error")
			}
			if got := status.Code(err); got != c.code {
				t.Errorf("code %s, want %s: %v", got, c.code, err)
			}
			for _, word := range c.says {
				if err != nil && !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			before.compare(t, "after the refusal", func() census { return count(t, d) })
		})
	}
}

// badPod refuses a pod that differs from a good one in one thing.
func (d *daemon) badPod(name string, code codes.Code, change func(*criapi.PodSandboxConfig), says ...string) bad {
	return bad{name, func() error {
		config := d.podConfig("bad")
		change(config)
		_, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: config})
		return err
	}, code, says}
}

// badContainer refuses a container; the error may come when it is created or
// when it is started. What was created is removed again.
func (p *pod) badContainer(name string, code codes.Code, change func(*criapi.ContainerConfig), says ...string) bad {
	return bad{name, func() error {
		config := containerConfig("bad", "sleep", "1000")
		change(config)
		c, err := p.try(config)
		if err != nil {
			return err
		}
		err = c.tryStart()
		if s := c.status(); err != nil && s.State != criapi.ContainerState_CONTAINER_EXITED {
			p.d.t.Errorf("after the refused start: %s", s.State)
		}
		c.remove()
		return err
	}, code, says}
}

func (d *daemon) badPodExists(id string) bad {
	return bad{"name of another pod", func() error {
		_, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: d.podConfig("good")})
		return err
	}, codes.AlreadyExists, []string{"good", id}}
}

func TestBadPodsAreRefused(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	good := d.runPod("good", func(c *criapi.PodSandboxConfig) {
		c.PortMappings = []*criapi.PortMapping{{Protocol: criapi.Protocol_TCP, ContainerPort: 80, HostPort: 8099}}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:8098")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := func(p *criapi.PortMapping) func(*criapi.PodSandboxConfig) {
		return func(c *criapi.PodSandboxConfig) { c.PortMappings = []*criapi.PortMapping{p} }
	}
	sysctl := func(name, value string) func(*criapi.PodSandboxConfig) {
		return func(c *criapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{name: value} }
	}
	invalid := codes.InvalidArgument
	d.refuses(t, []bad{
		d.badPodExists(good.id),
		{"no config", func() error {
			_, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{})
			return err
		}, invalid, []string{"config: is missing"}},
		{"unknown handler", func() error {
			_, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: d.podConfig("bad"), RuntimeHandler: "kata"})
			return err
		}, invalid, []string{` runtime_handler "kata": `}},
		d.badPod("no metadata", invalid, func(c *criapi.PodSandboxConfig) { c.Metadata = nil }, `config.metadata.name "": `),
		d.badPod("no name", invalid, func(c *criapi.PodSandboxConfig) { c.Metadata.Name = "" }, `config.metadata.name "": `),
		d.badPod("no uid", invalid, func(c *criapi.PodSandboxConfig) { c.Metadata.Uid = "" }, `config.metadata.uid "": `),
		d.badPod("hostname of two lines", invalid, func(c *criapi.PodSandboxConfig) { c.Hostname = "a\nb" }, `config.hostname "a\nb": `),
		d.badPod("hostname too long", invalid, func(c *criapi.PodSandboxConfig) { c.Hostname = strings.Repeat("h", 65) }, `config.hostname "hhh`, "64"),
		d.badPod("relative log directory", invalid, func(c *criapi.PodSandboxConfig) { c.LogDirectory = "logs" }, `config.log_directory "logs": `),
		d.badPod("name server of two lines", invalid, func(c *criapi.PodSandboxConfig) {
			c.DnsConfig = &criapi.DNSConfig{Servers: []string{"10.0.0.1\noptions evil"}}
		}, `config.dns_config.servers[0] "10.0.0.1\noptions evil": `),
		d.badPod("port of a listener", codes.Unknown, port(&criapi.PortMapping{ContainerPort: 80, HostPort: 8098}), `config.port_mappings[0].host_port "8098": tcp port 8098 is taken by process `),
		d.badPod("port of a pod", codes.Unknown, port(&criapi.PortMapping{ContainerPort: 80, HostPort: 8099}), `config.port_mappings[0].host_port "8099": tcp port 8099 is taken by pod `, "good"),
		d.badPod("port too large", invalid, port(&criapi.PortMapping{ContainerPort: 80, HostPort: 70000}), `config.port_mappings[0].host_port "70000": `),
		d.badPod("port of no address", invalid, port(&criapi.PortMapping{ContainerPort: 80, HostPort: 8097, HostIp: "localhost"}), `config.port_mappings[0].host_ip "localhost": `),
		d.badPod("port without container port", invalid, port(&criapi.PortMapping{HostPort: 8097}), `config.port_mappings[0].container_port "0": `),
		d.badPod("unknown protocol", invalid, port(&criapi.PortMapping{Protocol: 7, ContainerPort: 80, HostPort: 8097}), `config.port_mappings[0].protocol "7": `),
		d.badPod("sysctl of the node", invalid, sysctl("kernel.core_pattern", "|/bin/sh"), `config.linux.sysctls[kernel.core_pattern] "|/bin/sh": `),
		d.badPod("sysctl with plus", invalid, sysctl("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/bin/evil"), "config.linux.sysctls[kernel.shm_rmid_forced] ", "core_pattern"),
		d.badPod("sysctl with equals", invalid, sysctl("net.ipv4.ip_forward=1;kernel.core_pattern", "x"), `config.linux.sysctls[net.ipv4.ip_forward=1;kernel.core_pattern] "x": `),
		d.badPod("sysctl out of its tree", invalid, sysctl("net/../kernel/core_pattern", "x"), `config.linux.sysctls[net/../kernel/core_pattern] "x": `),
		d.badPod("sysctl of two lines", invalid, sysctl("net.ipv4.ip_forward", "1\n1"), `config.linux.sysctls[net.ipv4.ip_forward] "1\n1": `),
		d.badPod("sysctl that does not exist", invalid, sysctl("net.ipv4.no_such_thing", "1"), `config.linux.sysctls[net.ipv4.no_such_thing] "1": `),
		d.badPod("sysctl with a value that the kernel refuses", invalid, sysctl("net.ipv4.ip_forward", "forward"), `config.linux.sysctls[net.ipv4.ip_forward] "forward": `),
		d.badPod("cgroup parent outside", invalid, func(c *criapi.PodSandboxConfig) { c.Linux.CgroupParent = "/pods/../../x" }, `config.linux.cgroup_parent "/pods/../../x": `),
		d.badPod("group without user", invalid, func(c *criapi.PodSandboxConfig) {
			c.Linux.SecurityContext.RunAsGroup = &criapi.Int64Value{Value: 7}
		}, `config.linux.security_context.run_as_group "7": `),
		d.badPod("user namespace without mapping", invalid, func(c *criapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD}
		}, `config.linux.security_context.namespace_options.userns_options.uids "0 mappings": `),
		d.badPod("namespace of a target", invalid, func(c *criapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_TARGET
		}, `config.linux.security_context.namespace_options.network "TARGET": `),
		{"range of pods", func() error {
			_, err := d.UpdateRuntimeConfig(d.context(), &criapi.UpdateRuntimeConfigRequest{
				RuntimeConfig: &criapi.RuntimeConfig{NetworkConfig: &criapi.NetworkConfig{PodCidr: "10.0.0.0/99"}}})
			return err
		}, invalid, []string{` runtime_config.network_config.pod_cidr "10.0.0.0/99": want a range like 10.88.0.0/16`}},
		d.badPod("port of two containers", invalid, func(c *criapi.PodSandboxConfig) {
			c.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 8097}, {ContainerPort: 81, HostPort: 8097}}
		}, `config.port_mappings[1].host_port "8097": `, "80 and to 81"),
	})
	good.remove()
	check()
}

func TestBadContainersAreRefused(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("good")
	good := p.run(containerConfig("good", "sleep", "1000"))
	files := t.TempDir()
	for name, text := range map[string]string{
		"no.json": "this is no profile", "empty.json": "{}", "action.json": `{"defaultAction":"SCMP_ACT_DANCE"}`, "file": "x",
	} {
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	security := func(change func(*criapi.LinuxContainerSecurityContext)) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) { change(c.Linux.SecurityContext) }
	}
	profile := func(path string) func(*criapi.ContainerConfig) {
		return security(func(s *criapi.LinuxContainerSecurityContext) {
			s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: path}
		})
	}
	user := func(id int64) func(*criapi.ContainerConfig) {
		return security(func(s *criapi.LinuxContainerSecurityContext) { s.RunAsUser = &criapi.Int64Value{Value: id} })
	}
	mount := func(m *criapi.Mount) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) { c.Mounts = []*criapi.Mount{m} }
	}
	command := func(args ...string) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) { c.Command = args }
	}
	invalid := codes.InvalidArgument
	d.refuses(t, []bad{
		p.badContainer("name of another", codes.AlreadyExists, func(c *criapi.ContainerConfig) { c.Metadata.Name = "good" }, good.id),
		p.badContainer("no metadata", invalid, func(c *criapi.ContainerConfig) { c.Metadata = nil }, "config.metadata: is missing"),
		p.badContainer("unknown image", codes.NotFound, func(c *criapi.ContainerConfig) { c.Image.Image = "registry.test/none:1" }, `config.image.image "registry.test/none:1": not found`),
		p.badContainer("bad reference", invalid, func(c *criapi.ContainerConfig) { c.Image.Image = "Registry.test/UPPER:1" }, `config.image.image "Registry.test/UPPER:1": `),
		p.badContainer("no image", invalid, func(c *criapi.ContainerConfig) { c.Image = nil }, `config.image.image "": `),
		p.badContainer("missing host path", invalid, mount(&criapi.Mount{ContainerPath: "/mnt", HostPath: files + "/none"}), `config.mounts[0].host_path "`+files+`/none": no such file or directory`),
		p.badContainer("folder over a file", invalid, mount(&criapi.Mount{ContainerPath: "/etc/motd", HostPath: files}), `config.mounts[0].host_path "`+files+`": is a folder, and /etc/motd a file in the image`),
		p.badContainer("relative host path", invalid, mount(&criapi.Mount{ContainerPath: "/mnt", HostPath: "etc"}), `config.mounts[0].host_path "etc": `),
		p.badContainer("relative container path", invalid, mount(&criapi.Mount{ContainerPath: "mnt", HostPath: files}), `config.mounts[0].container_path "mnt": `),
		p.badContainer("mount over the root", invalid, mount(&criapi.Mount{ContainerPath: "/..", HostPath: files}), `config.mounts[0].container_path "/..": `),
		p.badContainer("unknown propagation", invalid, mount(&criapi.Mount{ContainerPath: "/mnt", HostPath: files, Propagation: 9}), `config.mounts[0].propagation "9": `),
		p.badContainer("propagation from a private mount", invalid,
			mount(&criapi.Mount{ContainerPath: "/mnt", HostPath: files, Propagation: criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL}), `config.mounts[0].propagation "PROPAGATION_BIDIRECTIONAL": host_path `+files+" is on the mount "),
		p.badContainer("recursive read-only without read-only", invalid,
			mount(&criapi.Mount{ContainerPath: "/mnt", HostPath: files, RecursiveReadOnly: true}), `config.mounts[0].recursive_read_only "true": `),
		p.badContainer("file over a folder", invalid, mount(&criapi.Mount{ContainerPath: "/tmp", HostPath: files + "/file"}), `config.mounts[0].host_path "`+files+`/file": is a file, and /tmp a folder in the image`),
		p.badContainer("unknown image volume", codes.NotFound, mount(&criapi.Mount{ContainerPath: "/mnt", Readonly: true,
			Image: &criapi.ImageSpec{Image: "registry.test/none:1"}}), `config.mounts[0].image.image "registry.test/none:1": not found`),
		p.badContainer("missing device", invalid, func(c *criapi.ContainerConfig) {
			c.Devices = []*criapi.Device{{ContainerPath: "/dev/x", HostPath: "/dev/none-such", Permissions: "rwm"}}
		}, `config.devices[0].host_path "/dev/none-such": no such file or directory`),
		p.badContainer("unknown CDI device", invalid, func(c *criapi.ContainerConfig) {
			c.CDIDevices = []*criapi.CDIDevice{{Name: "vendor.com/gpu=0"}}
		}, `config.CDI_devices[0].name "vendor.com/gpu=0": `),
		p.badContainer("unknown user name", invalid, security(func(s *criapi.LinuxContainerSecurityContext) { s.RunAsUsername = "stranger" }), `config.linux.security_context.run_as_username "stranger": `),
		p.badContainer("user beyond the last", invalid, user(1<<32), `config.linux.security_context.run_as_user "4294967296": `),
		p.badContainer("user below the first", invalid, user(-1), `config.linux.security_context.run_as_user "-1": `),
		p.badContainer("group without user", invalid, security(func(s *criapi.LinuxContainerSecurityContext) {
			s.RunAsGroup = &criapi.Int64Value{Value: 7}
		}), `config.linux.security_context.run_as_group "7": `),
		p.badContainer("group beyond the last", invalid, security(func(s *criapi.LinuxContainerSecurityContext) {
			s.SupplementalGroups = []int64{1 << 40}
		}), `config.linux.security_context.supplemental_groups[0] "1099511627776": `),
		p.badContainer("missing seccomp profile", invalid, profile(files+"/none.json"), `config.linux.security_context.seccomp.localhost_ref "`+files+`/none.json": no such file or directory`),
		p.badContainer("seccomp profile that is a folder", invalid, profile(files), `config.linux.security_context.seccomp.localhost_ref "`+files+`": `),
		p.badContainer("seccomp profile that is none", invalid, profile(files+"/no.json"), `config.linux.security_context.seccomp.localhost_ref "`+files+`/no.json": `),
		p.badContainer("seccomp profile without action", invalid, profile(files+"/empty.json"), `config.linux.security_context.seccomp.localhost_ref "`+files+`/empty.json": `),
		p.badContainer("seccomp profile with an unknown action", invalid, profile(files+"/action.json"), `config.linux.security_context.seccomp.localhost_ref "`+files+`/action.json": `, "SCMP_ACT_DANCE"),
		p.badContainer("relative seccomp profile", invalid, profile("x.json"), `config.linux.security_context.seccomp.localhost_ref "x.json": `),
		p.badContainer("AppArmor profile", invalid, security(func(s *criapi.LinuxContainerSecurityContext) {
			s.Apparmor = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: "strict"}
		}), `config.linux.security_context.apparmor.localhost_ref "strict": `),
		p.badContainer("unknown capability", invalid, security(func(s *criapi.LinuxContainerSecurityContext) {
			s.Capabilities = &criapi.Capability{AddCapabilities: []string{"FLY"}}
		}), `config.linux.security_context.capabilities.add_capabilities "FLY": unknown capability`),
		p.badContainer("privileged in a pod that is not", invalid, security(func(s *criapi.LinuxContainerSecurityContext) { s.Privileged = true }), `config.linux.security_context.privileged "true": `),
		p.badContainer("target that is nobody", invalid, security(func(s *criapi.LinuxContainerSecurityContext) {
			s.NamespaceOptions = &criapi.NamespaceOption{Pid: criapi.NamespaceMode_TARGET, TargetId: "nobody"}
		}), `config.linux.security_context.namespace_options.target_id "nobody": `),
		p.badContainer("log outside of its directory", invalid, func(c *criapi.ContainerConfig) { c.LogPath = "../escaped.log" }, `config.log_path "../escaped.log": `),
		p.badContainer("absolute log", invalid, func(c *criapi.ContainerConfig) { c.LogPath = "/tmp/escaped.log" }, `config.log_path "/tmp/escaped.log": `),
		p.badContainer("variable without name", invalid, func(c *criapi.ContainerConfig) {
			c.Envs = []*criapi.KeyValue{{Key: "A=B", Value: []byte("x")}}
		}, `config.envs[0].key "A=B": `),
		p.badContainer("no such program", codes.Unknown, command("no-such-program"), "no-such-program"),
		p.badContainer("no such path", codes.Unknown, command("/no/such/program"), "/no/such/program"),
		p.badContainer("program that is a folder", codes.Unknown, command("/etc"), "/etc"),
		p.badContainer("program that may not be executed", codes.Unknown, command("/etc/passwd"), "/etc/passwd"),
		p.badContainer("empty program", invalid, command(""), `config.command[0] "": `),
		p.badContainer("working directory that is a file", codes.Unknown, func(c *criapi.ContainerConfig) { c.WorkingDir = "/etc/passwd" }, "/etc/passwd"),
		p.badContainer("handler of another pod", invalid, func(c *criapi.ContainerConfig) { c.Image.RuntimeHandler = "kata" }, `config.image.runtime_handler "kata": `),
		{"exec of no such program", func() error {
			_, err := d.ExecSync(d.context(), &criapi.ExecSyncRequest{ContainerId: good.id, Cmd: []string{"no-such-program"}, Timeout: 5})
			return err
		}, codes.Unknown, []string{"no-such-program"}},
		{"exec of nothing", func() error {
			_, err := d.ExecSync(d.context(), &criapi.ExecSyncRequest{ContainerId: good.id, Timeout: 5})
			return err
		}, invalid, []string{`cmd "": `}},
		{"exec with negative timeout", func() error {
			_, err := d.ExecSync(d.context(), &criapi.ExecSyncRequest{ContainerId: good.id, Cmd: []string{"true"}, Timeout: -1})
			return err
		}, invalid, []string{` timeout "-1": `}},
		{"exec longer than its timeout", func() error {
			_, err := d.ExecSync(d.context(), &criapi.ExecSyncRequest{ContainerId: good.id, Cmd: []string{"sleep", "1000"}, Timeout: 1})
			return err
		}, codes.DeadlineExceeded, nil},
		{"exec with terminal and stderr", func() error {
			_, err := d.Exec(d.context(), &criapi.ExecRequest{ContainerId: good.id, Cmd: []string{"true"}, Tty: true, Stdout: true, Stderr: true})
			return err
		}, invalid, []string{` stderr "true": `, "terminal"}},
		{"exec without streams", func() error {
			_, err := d.Exec(d.context(), &criapi.ExecRequest{ContainerId: good.id, Cmd: []string{"true"}})
			return err
		}, invalid, []string{` stdin, stdout, stderr "false": `}},
		{"attach with another terminal", func() error {
			_, err := d.Attach(d.context(), &criapi.AttachRequest{ContainerId: good.id, Tty: true, Stdout: true})
			return err
		}, invalid, []string{` tty "true": `}},
	})
	for _, escaped := range []string{filepath.Join(d.logs(), "escaped.log"), "/tmp/escaped.log"} {
		if _, err := os.Lstat(escaped); err == nil {
			t.Errorf("%s was made", escaped)
		}
	}
	p.remove()
	check()
}
