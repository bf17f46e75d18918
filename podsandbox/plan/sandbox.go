package plan

import (
	"math"
	"net/netip"
	"regexp"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// shmSize is the size of a pod's /dev/shm, the same as with other runtimes.
const shmSize = 64 << 20

// Sandbox plans the namespaces of a pod.
func Sandbox(id string, cfg *criapi.PodSandboxConfig, f Facts) (spec.Sandbox, error) {
	if err := checkPod(cfg); err != nil {
		return spec.Sandbox{}, err
	}
	security := cfg.GetLinux().GetSecurityContext()
	s := spec.Sandbox{ID: id, ShmSize: shmSize}
	if err := namespaces(&s, security.GetNamespaceOptions()); err != nil {
		return spec.Sandbox{}, err
	}
	if !s.HostUTS {
		s.Hostname = Hostname(cfg, f)
	}
	var err error
	if s.Sysctls, err = sysctls(cfg.GetLinux().GetSysctls(), s); err != nil {
		return spec.Sandbox{}, err
	}
	if s.Cgroup, err = f.cgroup(cfg.GetLinux().GetCgroupParent(), id); err != nil {
		return spec.Sandbox{}, err
	}
	if err := checkSELinux(security.GetSelinuxOptions()); err != nil {
		return spec.Sandbox{}, err
	}
	return s, checkPodProfiles(security)
}

// Hostname is the name that programs of the pod see.
func Hostname(cfg *criapi.PodSandboxConfig, f Facts) string {
	if cfg.GetHostname() == "" || HostNetwork(cfg) {
		return f.Hostname
	}
	return cfg.GetHostname()
}

// HostNetwork says whether the pod lives in the node's network.
func HostNetwork(cfg *criapi.PodSandboxConfig) bool {
	return cfg.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == criapi.NamespaceMode_NODE
}

func checkPod(cfg *criapi.PodSandboxConfig) error {
	m := cfg.GetMetadata()
	switch {
	case m.GetName() == "":
		return invalid("config.metadata.name", "", "is missing")
	case m.GetNamespace() == "":
		return invalid("config.metadata.namespace", "", "is missing")
	case m.GetUid() == "":
		return invalid("config.metadata.uid", "", "is missing")
	case cfg.Windows != nil:
		return NoText("config.windows", "is not for a Linux node")
	}
	if dir := cfg.LogDirectory; dir != "" && !absolute(dir) {
		return invalid("config.log_directory", dir, "must be an absolute path")
	}
	if err := checkHostname(cfg.Hostname); err != nil {
		return err
	}
	if err := checkDNS(cfg.DnsConfig); err != nil {
		return err
	}
	if err := checkPorts(cfg.PortMappings); err != nil {
		return err
	}
	return checkPodUser(cfg.GetLinux().GetSecurityContext())
}

// checkPodUser checks what is said of the processes of the sandbox itself. It
// says nothing of the containers, and of the user's programs there is none.
func checkPodUser(s *criapi.LinuxSandboxSecurityContext) error {
	if g := s.GetRunAsGroup(); g != nil && s.GetRunAsUser() == nil {
		return invalid(securityField+"run_as_group", g.Value, "needs run_as_user")
	}
	policy := s.GetSupplementalGroupsPolicy()
	if _, known := criapi.SupplementalGroupsPolicy_name[int32(policy)]; !known {
		return invalid(securityField+"supplemental_groups_policy", policy, "is unknown")
	}
	ids := map[string]int64{"run_as_user": s.GetRunAsUser().GetValue(), "run_as_group": s.GetRunAsGroup().GetValue()}
	for i, id := range s.GetSupplementalGroups() {
		ids[item("supplemental_groups", i)] = id
	}
	for field, id := range ids {
		if id < 0 || id > math.MaxInt32 {
			return invalid(securityField+field, id, "is not between 0 and %d", math.MaxInt32)
		}
	}
	return nil
}

var hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

func checkHostname(name string) error {
	if name == "" {
		return nil
	}
	if len(name) > 64 {
		return invalid("config.hostname", name, "is longer than 64 bytes")
	}
	if !hostname.MatchString(name) {
		return invalid("config.hostname", name, "may hold letters, digits, dots and dashes only")
	}
	return nil
}

// checkDNS keeps a value from becoming a second line of resolv.conf.
func checkDNS(dns *criapi.DNSConfig) error {
	lists := []struct {
		field  string
		values []string
	}{{"servers", dns.GetServers()}, {"searches", dns.GetSearches()}, {"options", dns.GetOptions()}}
	for _, l := range lists {
		for i, v := range l.values {
			if v == "" || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				return invalid("config.dns_config."+item(l.field, i), v, "must be one word")
			}
		}
	}
	return nil
}

func checkPorts(ports []*criapi.PortMapping) error {
	for i, p := range ports {
		switch {
		case criapi.Protocol_name[int32(p.Protocol)] == "":
			return invalid(at("config.port_mappings", i, "protocol"), p.Protocol, "is unknown")
		case p.HostPort < 0 || p.HostPort > 65535:
			return invalid(at("config.port_mappings", i, "host_port"), p.HostPort, "is not between 0 and 65535")
		case p.ContainerPort < 0 || p.ContainerPort > 65535 || p.ContainerPort == 0 && p.HostPort != 0:
			return invalid(at("config.port_mappings", i, "container_port"), p.ContainerPort, "is not between 1 and 65535")
		}
		if p.HostIp == "" {
			continue
		}
		if ip, err := netip.ParseAddr(p.HostIp); err != nil || ip.Zone() != "" {
			return invalid(at("config.port_mappings", i, "host_ip"), p.HostIp, "is not an IP address")
		}
	}
	return nil
}
