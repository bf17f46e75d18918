package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/enclosure"
	"cri-mini/internal/testregistry"
)

// The addresses of the cluster. They are in namespaces of its own, so that
// clusters side by side have the same.
const (
	bridge   = "cluster"
	control  = "172.30.0.1" // of the bridge: the control plane and the registry
	netmask  = "/24"
	pods     = "10.244.0.0/16"
	services = "10.96.0.0/16"
	apiVIP   = "10.96.0.1"  // the first of services
	dnsVIP   = "10.96.0.10" // where kubelets send pods for names
)

// apiSocket is a file in the folder of a cluster.
const apiSocket = "api.sock"

//go:embed files
var files embed.FS

// cluster is a control plane and its nodes. It lives in an enclosure.
type cluster struct {
	dir      string
	pki      *authority
	registry *testregistry.Registry
	programs []*process // of the control plane
	nodes    []*node
	api      net.Listener // for who is outside of the enclosure
}

// binary is a program of Kubernetes, where hack/kubernetes puts it.
func binary(name string) string {
	dir := os.Getenv("CLUSTER_BINARIES")
	if dir == "" {
		dir = "../../.cache/bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return name
	}
	return path
}

// up makes a cluster with folders below dir. When it fails, what it made is
// for down, as if it had not.
func up(dir string, tell func(string)) (c *cluster, err error) {
	c = &cluster{dir: dir}
	for _, sub := range []string{"log", "pki"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return c, err
		}
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"certificates", c.certify},
		{"network", c.connect},
		{"images", c.pushImages},
		{"control plane", c.startControl},
		{"nodes", c.startNodes},
		{"routes between the nodes", c.route},
	} {
		begin := time.Now()
		if err := step.do(); err != nil {
			return c, fmt.Errorf("%s: %w", step.what, err)
		}
		tell(fmt.Sprintf("%s (%s)", step.what, time.Since(begin).Round(time.Second/10)))
	}
	return c, nil
}

// connect makes the bridge of the nodes.
func (c *cluster) connect() error {
	return commands([][]string{
		{"link", "add", bridge, "type", "bridge"},
		{"addr", "add", control + netmask, "dev", bridge},
		{"link", "set", bridge, "up"},
	})
}

func commands(lists [][]string) error {
	for _, args := range lists {
		if _, err := command("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// kubectl asks as the administrator.
func (c *cluster) kubectl(args ...string) (string, error) {
	return c.kubectlCommand(args...).output()
}

type kubectlCommand struct{ *exec.Cmd }

func (c *cluster) kubectlCommand(args ...string) kubectlCommand {
	cmd := exec.Command(binary("kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.dir, "admin.kubeconfig"), "HOME="+c.dir)
	return kubectlCommand{cmd}
}

func (k kubectlCommand) output() (string, error) {
	var out, complaint bytes.Buffer
	k.Stdout, k.Stderr = &out, &complaint
	if err := k.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(k.Args[1:], " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// fill writes a file of this package with the values that it names.
func fill(name, path string, values any) error {
	text, err := files.ReadFile("files/" + name)
	if err != nil {
		return err
	}
	filled, err := template.New(name).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := filled.Execute(&out, values); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// kubeconfig writes NAME.kubeconfig for the user whose certificate has that name.
func (c *cluster) kubeconfig(name, user, server string) error {
	return fill("kubeconfig.yaml", filepath.Join(c.dir, name+".kubeconfig"),
		map[string]string{"Server": server, "PKI": c.pki.dir, "User": user})
}

// down ends everything in the order in which an administrator would. The error
// says what did not end, or what a node has left.
func (c *cluster) down() error {
	var failed []error
	for _, n := range c.nodes {
		failed = append(failed, n.stop())
	}
	for i := len(c.programs) - 1; i >= 0; i-- {
		failed = append(failed, c.programs[i].stop(unix.SIGTERM))
	}
	if c.api != nil {
		failed = append(failed, c.api.Close())
	}
	if c.registry != nil {
		c.registry.Close()
	}
	return errors.Join(failed...)
}

// serveAPI lets the API server be reached by a socket in the folder, for who is
// in another network.
func (c *cluster) serveAPI(path string) (err error) {
	if c.api, err = net.Listen("unix", path); err != nil {
		return err
	}
	go forward(c.api, "tcp", control+":6443")
	return nil
}

// forward connects who comes to a listener with somebody else.
func forward(from net.Listener, network, address string) {
	for {
		here, err := from.Accept()
		if err != nil {
			return
		}
		go func() {
			defer here.Close()
			there, err := net.Dial(network, address)
			if err != nil {
				return
			}
			defer there.Close()
			go func() {
				_, _ = io.Copy(there, here)
				there.(interface{ CloseWrite() error }).CloseWrite()
			}()
			_, _ = io.Copy(here, there)
		}()
	}
}

// controllers are those of cgroup v2 that this machine has for us.
func controllers() ([]string, error) {
	text, err := os.ReadFile(enclosure.CgroupRoot + "/cgroup.controllers")
	return strings.Fields(string(text)), err
}
