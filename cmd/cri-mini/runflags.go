package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/masked"
)

// podFlags say what a pod made by hand looks like.
type podFlags struct {
	Name        string   `placeholder:"NAME" help:"Name of the pod and host name in it."`
	HostNetwork bool     `help:"Use the host's network."`
	Volume      []string `short:"v" sep:"none" placeholder:"SOURCE:TARGET[:ro]" help:"Show a path of the host in the container."`
	Env         []string `short:"e" sep:"none" placeholder:"NAME[=VALUE]" help:"Set a variable, or pass on ours."`
	User        string   `placeholder:"USER[:GROUP]" help:"User by number or by a name that the image knows."`
	Memory      string   `placeholder:"BYTES" help:"Limit, such as 64M."`
	Publish     []string `short:"p" sep:"none" placeholder:"[ADDRESS:]HOSTPORT:PORT[/udp]" help:"Forward a port of the host."`
	Workdir     string   `short:"w" placeholder:"DIR" help:"Working directory."`
	Privileged  bool     `help:"Give the program all rights and devices of the host."`
}

// configs is a pod and its container as the CRI wants them.
func (f podFlags) configs(image string, command []string, stdin, tty bool) (*criapi.PodSandboxConfig, *criapi.ContainerConfig, error) {
	unique := make([]byte, 8)
	rand.Read(unique) // never fails
	name := f.Name
	if name == "" {
		name = "run-" + hex.EncodeToString(unique[:3])
	}
	// The program is not PID 1 but the child of one that reaps: to PID 1 the
	// kernel does not deliver signals that would end others, such as Ctrl-C.
	namespaces := &criapi.NamespaceOption{Pid: criapi.NamespaceMode_POD}
	if f.HostNetwork {
		namespaces.Network = criapi.NamespaceMode_NODE
	}
	pod := &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: name, Namespace: "run", Uid: hex.EncodeToString(unique)},
		Linux: &criapi.LinuxPodSandboxConfig{
			SecurityContext: &criapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces, Privileged: f.Privileged},
		},
	}
	if !f.HostNetwork {
		pod.Hostname = name
	}
	security := &criapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces,
		Privileged:       f.Privileged,
		MaskedPaths:      masked.Hidden(),
		ReadonlyPaths:    masked.Readonly(),
		Seccomp:          &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
	}
	container := &criapi.ContainerConfig{
		Metadata:   &criapi.ContainerMetadata{Name: name},
		Image:      &criapi.ImageSpec{Image: image, UserSpecifiedImage: image},
		Args:       command,
		WorkingDir: f.Workdir,
		Stdin:      stdin,
		StdinOnce:  stdin,
		Tty:        tty,
		Linux:      &criapi.LinuxContainerConfig{SecurityContext: security, Resources: &criapi.LinuxContainerResources{}},
	}
	for _, set := range []func() error{
		func() error { return checkName(name) },
		func() (err error) { pod.PortMappings, err = ports(f.Publish); return },
		func() (err error) { container.Mounts, err = mounts(f.Volume); return },
		func() (err error) { container.Linux.Resources.MemoryLimitInBytes, err = size(f.Memory); return },
		func() error { return user(security, f.User) },
	} {
		if err := set(); err != nil {
			return nil, nil, err
		}
	}
	container.Envs = environment(f.Env, tty)
	return pod, container, nil
}

var podName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)

// checkName wants what can be a host name too.
func checkName(name string) error {
	if !podName.MatchString(name) {
		return fmt.Errorf("--name %q: want at most 63 letters, digits, dots and dashes, of which the last two not at an end", name)
	}
	return nil
}

func mounts(flags []string) ([]*criapi.Mount, error) {
	var all []*criapi.Mount
	for _, text := range flags {
		parts := strings.Split(text, ":")
		if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !filepath.IsAbs(parts[1]) {
			return nil, fmt.Errorf("--volume %q: want SOURCE:TARGET[:ro] with an absolute target", text)
		}
		m := &criapi.Mount{ContainerPath: parts[1]}
		if len(parts) == 3 {
			if parts[2] != "ro" && parts[2] != "rw" {
				return nil, fmt.Errorf("--volume %q: option %q is not ro or rw", text, parts[2])
			}
			m.Readonly = parts[2] == "ro"
		}
		var err error
		if m.HostPath, err = absolute(parts[0]); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func ports(flags []string) ([]*criapi.PortMapping, error) {
	var all []*criapi.PortMapping
	for _, text := range flags {
		rest, protocol, _ := strings.Cut(text, "/")
		m := &criapi.PortMapping{}
		switch strings.ToLower(protocol) {
		case "", "tcp":
		case "udp":
			m.Protocol = criapi.Protocol_UDP
		case "sctp":
			m.Protocol = criapi.Protocol_SCTP
		default:
			return nil, fmt.Errorf("--publish %q: protocol %q is not tcp, udp or sctp", text, protocol)
		}
		colon := strings.LastIndexByte(rest, ':')
		if colon < 0 {
			return nil, fmt.Errorf("--publish %q: want [ADDRESS:]HOSTPORT:PORT", text)
		}
		host, inside := rest[:colon], rest[colon+1:]
		if colon = strings.LastIndexByte(host, ':'); colon >= 0 {
			address, err := netip.ParseAddr(strings.Trim(host[:colon], "[]"))
			if err != nil {
				return nil, fmt.Errorf("--publish %q: address %q: not an IP address", text, host[:colon])
			}
			m.HostIp, host = address.String(), host[colon+1:]
		}
		for _, port := range []struct {
			text string
			to   *int32
		}{{host, &m.HostPort}, {inside, &m.ContainerPort}} {
			n, err := strconv.ParseUint(port.text, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("--publish %q: port %q: want 1 to 65535", text, port.text)
			}
			*port.to = int32(n)
		}
		all = append(all, m)
	}
	return all, nil
}

// size reads a number of bytes with a binary prefix.
func size(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	digits, shift := text, 0
	if i := strings.IndexByte("kmgt", text[len(text)-1]|0x20); i >= 0 {
		digits, shift = text[:len(text)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n<<shift>>shift != n {
		return 0, fmt.Errorf("--memory %q: want a number of bytes, or one with k, M, G or T", text)
	}
	return n << shift, nil
}

func user(s *criapi.LinuxContainerSecurityContext, text string) error {
	if text == "" {
		return nil
	}
	name, group, hasGroup := strings.Cut(text, ":")
	if uid, err := strconv.ParseUint(name, 10, 31); err == nil {
		s.RunAsUser = &criapi.Int64Value{Value: int64(uid)}
	} else {
		s.RunAsUsername = name
	}
	if hasGroup {
		gid, err := strconv.ParseUint(group, 10, 31)
		if err != nil || name == "" {
			return fmt.Errorf("--user %q: want USER or USER:GID", text)
		}
		s.RunAsGroup = &criapi.Int64Value{Value: int64(gid)}
	}
	return nil
}

func environment(flags []string, tty bool) []*criapi.KeyValue {
	var all []*criapi.KeyValue
	if term := os.Getenv("TERM"); tty && term != "" {
		all = append(all, &criapi.KeyValue{Key: "TERM", Value: []byte(term)})
	}
	for _, text := range flags {
		name, value, given := strings.Cut(text, "=")
		if !given {
			value = os.Getenv(name)
		}
		all = append(all, &criapi.KeyValue{Key: name, Value: []byte(value)})
	}
	return all
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path) // the daemon's folder is not ours
}
