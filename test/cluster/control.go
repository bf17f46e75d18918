package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// accounts are the certificates of those who talk to the API server, as its
// built-in roles know them.
func (c *cluster) accounts() []subject {
	list := []subject{
		{file: "apiserver", user: "kube-apiserver", hosts: []string{control, apiVIP, "127.0.0.1", "localhost",
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		{file: "admin", user: "admin", group: "system:masters"},
		{file: "apiserver-to-kubelet", user: "apiserver-to-kubelet", group: "system:masters"},
		{file: "kube-controller-manager", user: "system:kube-controller-manager"},
		{file: "kube-scheduler", user: "system:kube-scheduler"},
		{file: "kube-proxy", user: "system:kube-proxy"},
	}
	for _, name := range nodeNames {
		list = append(list, subject{file: name, user: "system:node:" + name, group: "system:nodes", hosts: []string{name, nodeAddress(name)}})
	}
	return list
}

func (c *cluster) certify() (err error) {
	if c.pki, err = newAuthority(filepath.Join(c.dir, "pki")); err != nil {
		return err
	}
	if _, err := c.pki.newKey("service-accounts"); err != nil {
		return err
	}
	for _, account := range c.accounts() {
		if err := c.pki.issue(account); err != nil {
			return err
		}
		if err := c.kubeconfig(account.file, account.file, "https://"+control+":6443"); err != nil {
			return err
		}
	}
	return nil
}

// startControl starts the control plane in the network of the bridge.
func (c *cluster) startControl() error {
	pki := c.pki.file
	config := func(name string) string { return filepath.Join(c.dir, name+".kubeconfig") }
	for _, program := range []struct {
		name  string
		args  []string
		ready func() error
	}{
		{"etcd", []string{"--data-dir", c.dir + "/etcd", "--unsafe-no-fsync", "--listen-client-urls", "http://127.0.0.1:2379",
			"--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380"}, nil},
		{"kube-apiserver", []string{"--etcd-servers", "http://127.0.0.1:2379", "--advertise-address", control, "--secure-port", "6443",
			"--service-cluster-ip-range", services, "--allow-privileged", "--authorization-mode", "Node,RBAC",
			"--enable-admission-plugins", "NodeRestriction", "--cert-dir", c.pki.dir, "--client-ca-file", pki("ca.crt"),
			"--tls-cert-file", pki("apiserver.crt"), "--tls-private-key-file", pki("apiserver.key"),
			"--kubelet-certificate-authority", pki("ca.crt"), "--kubelet-client-certificate", pki("apiserver-to-kubelet.crt"),
			"--kubelet-client-key", pki("apiserver-to-kubelet.key"), "--kubelet-preferred-address-types", "InternalIP",
			"--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file", pki("service-accounts.pub"), "--service-account-signing-key-file", pki("service-accounts.key")},
			func() error { _, err := c.kubectl("get", "--raw", "/readyz"); return err }},
		{"kube-controller-manager", []string{"--kubeconfig", config("kube-controller-manager"), "--bind-address", "127.0.0.1", "--leader-elect=false",
			"--use-service-account-credentials", "--service-account-private-key-file", pki("service-accounts.key"), "--root-ca-file", pki("ca.crt"),
			"--allocate-node-cidrs", "--cluster-cidr", pods, "--service-cluster-ip-range", services, "--node-cidr-mask-size", "24",
			"--cert-dir", c.pki.dir}, nil},
		{"kube-scheduler", []string{"--kubeconfig", config("kube-scheduler"), "--bind-address", "127.0.0.1", "--leader-elect=false", "--cert-dir", c.pki.dir}, nil},
	} {
		cmd := exec.Command(binary(program.name), program.args...)
		cmd.Dir, cmd.Env = c.dir, append(os.Environ(), "HOME="+c.dir)
		p, err := run(c.dir+"/log", program.name, cmd)
		if err != nil {
			return err
		}
		c.programs = append(c.programs, p)
		if program.ready == nil {
			continue
		}
		if err := await(program.name+" is ready", program.ready, c.programs...); err != nil {
			return fmt.Errorf("%w\n%s", err, p.tail(20))
		}
	}
	return nil
}
