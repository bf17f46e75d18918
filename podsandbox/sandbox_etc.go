package podsandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cri-mini/internal/crashpoint"
	"cri-mini/podsandbox/plan"
)

// writeEtc writes the files that the pod's containers get below /etc.
func (s *Sandbox) writeEtc() error {
	hostname := plan.Hostname(s.config, s.pods.facts())
	resolvConf, err := s.resolvConf()
	if err != nil {
		return err
	}
	hosts := plan.Hosts(hostname, s.ips)
	if s.spec.HostNetwork {
		if hosts, err = readIfThere(s.pods.opt.Hosts); err != nil {
			return fmt.Errorf("the node's hosts: %w", err)
		}
	}
	dir := s.dir.path("etc")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	crashpoint.Here("pod.etc-folder-made")
	for name, data := range map[string][]byte{"hostname": []byte(hostname + "\n"), "hosts": hosts, "resolv.conf": resolvConf} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
		// Root of a user namespace is to own what root owns elsewhere.
		if ids := s.spec.IDs; ids != nil {
			if err := os.Chown(path, int(ids.Host), int(ids.Host)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Sandbox) resolvConf() ([]byte, error) {
	if own := plan.ResolvConf(s.config.DnsConfig); len(own) > 0 {
		return own, nil
	}
	node, err := readIfThere(s.pods.opt.ResolvConf)
	if err != nil {
		return nil, fmt.Errorf("the node's resolv.conf: %w", err)
	}
	if s.spec.HostNetwork || !plan.OnlyLoopback(node) {
		return node, nil
	}
	real, err := readIfThere(s.pods.opt.RealServers)
	if err != nil || len(real) == 0 {
		return node, err
	}
	return real, nil
}

func readIfThere(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
