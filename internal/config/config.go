// Package config is what an operator can decide about one daemon.
//
// A Config comes from three places: the defaults in its tags, a TOML file of
// flat keys, and the flags of the command line, of which each beats the one
// before. A key of the file and a flag have the same name. The package checks
// form, not whether the machine can do what is asked.
package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"cri-mini/internal/socket"
)

// DefaultFile is read when it exists.
const DefaultFile = "/etc/cri-mini/config.toml"

// DefaultRoot is the root of the machine's one instance, if it has but one.
const DefaultRoot = "/var/lib/cri-mini"

// Config is the whole of it. Each field is a key of the file and a flag.
type Config struct {
	Root              string `toml:"root" name:"root" default:"/var/lib/cri-mini" placeholder:"DIR" help:"Durable data: images, pods."`
	State             string `toml:"state" name:"state" default:"/run/cri-mini" placeholder:"DIR" help:"Data that a reboot may take."`
	RegistryConfigDir string `toml:"registry-config-dir" name:"registry-config-dir" default:"/etc/cri-mini/certs.d" placeholder:"DIR" help:"Registries: HOST/hosts.toml and _default/hosts.toml."`
	CNIConfDir        string `toml:"cni-conf-dir" name:"cni-conf-dir" default:"/etc/cni/net.d" placeholder:"DIR" help:"CNI configuration lists."`
	CNIBinDir         string `toml:"cni-bin-dir" name:"cni-bin-dir" default:"/opt/cni/bin" placeholder:"DIR" help:"CNI plugins."`
	Network           string `toml:"network" name:"network" default:"auto" placeholder:"NAME" help:"Pod network: auto, builtin or cni. Auto is cni when there is a configuration list."`
	PodCIDR           string `toml:"pod-cidr" name:"pod-cidr" default:"" placeholder:"CIDR,.." help:"Addresses of the built-in network, at most one range of each family; the kubelet's word goes first."`
	ClusterCIDR       string `toml:"cluster-cidr" name:"cluster-cidr" default:"" placeholder:"CIDR,.." help:"Addresses of all pods of a cluster with routes between its nodes. What pods send there keeps their address; without pod-cidr the built-in network waits until the kubelet tells the range of the node."`
	CDISpecDirs       string `toml:"cdi-spec-dirs" name:"cdi-spec-dirs" default:"/etc/cdi,/var/run/cdi" placeholder:"DIR,.." help:"Spec files of CDI devices; the later folder beats the earlier. Empty: no CDI devices."`
	CgroupDriver      string `toml:"cgroup-driver" name:"cgroup-driver" default:"auto" placeholder:"NAME" help:"Cgroups: auto, cgroupfs or systemd."`
	LayerForm         string `toml:"layer-form" name:"layer-form" default:"auto" placeholder:"FORM" help:"Layers of images on disk: auto, directory or erofs."`
	OpenFiles         uint64 `toml:"open-files" name:"open-files" default:"1048576" placeholder:"N" help:"Files that a process of a container may have open (RLIMIT_NOFILE), at most as many as we may; 0 leaves the limit of the monitor."`
	StreamAddress     string `toml:"stream-address" name:"stream-address" default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Where exec, attach and port-forward are served."`
	StreamHost        string `toml:"stream-host" name:"stream-host" default:"" placeholder:"HOST" help:"Host in the URLs of exec, attach and port-forward; the address itself if empty."`
	StreamCertificate string `toml:"stream-certificate" name:"stream-certificate" default:"" placeholder:"FILE" help:"Serve exec, attach and port-forward by TLS with this certificate (PEM), read again when it changes."`
	StreamKey         string `toml:"stream-key" name:"stream-key" default:"" placeholder:"FILE" help:"Private key of the certificate (PEM)."`
	StreamPlain       bool   `toml:"stream-plain" name:"stream-plain" default:"false" help:"Allow a stream-address beyond the loopback without TLS."`
	LogLevel          string `toml:"log-level" name:"log-level" default:"info" placeholder:"LEVEL" help:"Log: debug, info, warn or error."`
}

// Error is a value that cannot be.
type Error struct {
	Key    string
	Value  string
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %s", e.Key, e.Value, e.Reason) }

// Validate names the first key whose value cannot be.
func (c Config) Validate() error {
	for _, check := range []struct{ key, value string }{
		{"root", c.Root},
		{"state", c.State},
		{"registry-config-dir", c.RegistryConfigDir},
		{"cni-conf-dir", c.CNIConfDir},
		{"cni-bin-dir", c.CNIBinDir},
	} {
		if !filepath.IsAbs(check.value) {
			return &Error{check.key, check.value, "want an absolute path"}
		}
	}
	for _, dir := range c.CDIFolders() {
		if !filepath.IsAbs(dir) {
			return &Error{"cdi-spec-dirs", dir, "want an absolute path"}
		}
	}
	if filepath.Clean(c.Root) == filepath.Clean(c.State) {
		return &Error{"state", c.State, "is also the root; what a reboot may take needs its own place"}
	}
	for _, check := range []struct {
		key, value string
		words      []string
	}{
		{"network", c.Network, []string{"auto", "builtin", "cni"}},
		{"cgroup-driver", c.CgroupDriver, []string{"auto", "cgroupfs", "systemd"}},
		{"layer-form", c.LayerForm, []string{"auto", "directory", "erofs"}},
		{"log-level", c.LogLevel, []string{"debug", "info", "warn", "error"}},
	} {
		if !slices.Contains(check.words, check.value) {
			return &Error{check.key, check.value, "want one of " + strings.Join(check.words, ", ")}
		}
	}
	if _, _, err := net.SplitHostPort(c.StreamAddress); err != nil {
		return &Error{"stream-address", c.StreamAddress, "want host:port"}
	}
	if err := c.validateStreams(); err != nil {
		return err
	}
	if _, err := c.PodRanges(); err != nil {
		return err
	}
	_, err := c.ClusterRanges()
	return err
}

func (c Config) validateStreams() error {
	if strings.ContainsAny(c.StreamHost, "/[] ") {
		return &Error{"stream-host", c.StreamHost, "want a name or an address, without a port"}
	}
	files := []struct{ key, value string }{{"stream-certificate", c.StreamCertificate}, {"stream-key", c.StreamKey}}
	for i, file := range files {
		other := files[1-i]
		switch {
		case file.value == "" && other.value != "":
			return &Error{file.key, "", "missing, for " + other.key + " is given"}
		case file.value != "" && !filepath.IsAbs(file.value):
			return &Error{file.key, file.value, "want an absolute path"}
		}
	}
	return nil
}

// CDIFolders are the folders of CDISpecDirs.
func (c Config) CDIFolders() []string {
	var folders []string
	for dir := range strings.SplitSeq(c.CDISpecDirs, ",") {
		if dir = strings.TrimSpace(dir); dir != "" {
			folders = append(folders, dir)
		}
	}
	return folders
}

// PodRanges are the ranges of PodCIDR; none means the built-in default.
func (c Config) PodRanges() ([]netip.Prefix, error) {
	ranges, err := parseRanges("pod-cidr", c.PodCIDR)
	if err != nil {
		return nil, err
	}
	var v4, v6 int
	for _, prefix := range ranges {
		if prefix.Addr().Is4() {
			v4++
		} else {
			v6++
		}
	}
	if v4 > 1 || v6 > 1 {
		return nil, &Error{"pod-cidr", c.PodCIDR, "more than one range of a family"}
	}
	return ranges, nil
}

// ClusterRanges are the ranges of ClusterCIDR.
func (c Config) ClusterRanges() ([]netip.Prefix, error) {
	ranges, err := parseRanges("cluster-cidr", c.ClusterCIDR)
	if err != nil {
		return nil, err
	}
	for i, prefix := range ranges {
		if slices.ContainsFunc(ranges[:i], prefix.Overlaps) {
			return nil, &Error{"cluster-cidr", c.ClusterCIDR, "a range is in another one"}
		}
	}
	return ranges, nil
}

func parseRanges(key, list string) (ranges []netip.Prefix, err error) {
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, &Error{key, text, "want a range like 10.88.0.0/16"}
		}
		ranges = append(ranges, prefix.Masked())
	}
	return ranges, nil
}

// Endpoint is the address of the CRI socket. It stands apart because every
// command needs it, not only the daemon.
type Endpoint struct {
	Listen string `toml:"listen" name:"listen" default:"unix:///run/cri-mini/cri.sock" placeholder:"ADDRESS" help:"CRI socket of the daemon."`
}

// Validate tells whether the address can be.
func (e Endpoint) Validate() error {
	if _, err := socket.Path(e.Listen); err != nil {
		return &Error{"listen", e.Listen, "want unix:///absolute/path"}
	}
	return nil
}

// Path is the socket's file.
func (e Endpoint) Path() string {
	path, _ := socket.Path(e.Listen)
	return path
}

// AdminPath is the file of the socket beside it, for what CRI cannot say:
// admin.sock beside cri.sock, b.admin.sock beside b.sock. Each CRI socket has
// one of its own, or in a folder with two a command would reach the wrong
// daemon.
func (e Endpoint) AdminPath() string {
	dir, name := filepath.Split(e.Path())
	base, cut := strings.CutSuffix(name, ".sock")
	switch {
	case name == "cri.sock":
		return dir + "admin.sock"
	case cut:
		return dir + base + ".admin.sock"
	}
	return dir + name + ".admin"
}

// file is the layout of the TOML file.
type file struct {
	Endpoint
	Config
}

// Text is a file that says the same.
func Text(e Endpoint, c Config) (string, error) {
	text, err := toml.Marshal(file{e, c})
	return string(text), err
}
