package podsandbox

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"cri-mini/internal/masked"
	"cri-mini/podsandbox/history"
	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/apparmor"
	"cri-mini/runtime/capability"
	"cri-mini/runtime/selinux"
)

// Options is what Pods works with. The fields without "default" must be set.
type Options struct {
	Root     string // durable folder of this instance; ours are pods, containers and bad-records
	Executor Executor
	Images   Images
	Network  Network
	Logger   *slog.Logger // default slog.Default()

	// History remembers what was done; default one in memory only.
	History *history.History

	// AppArmor and SELinux are what the kernel has; default the packages of
	// these names.
	AppArmor AppArmor
	SELinux  SELinux

	// Handlers are the runtime handlers that exist besides "".
	Handlers []string
	// CgroupParent is where pods without a cgroup parent live; default
	// /cri-mini.
	CgroupParent string
	// SystemdCgroups puts a container in the scope cri-mini-<id>.scope of the
	// slice that the cgroup parent names, as the kubelet expects with its
	// systemd driver, instead of in the group <id> below the parent.
	SystemdCgroups bool
	// OpenFiles is RLIMIT_NOFILE of every process; 0 leaves the monitor's own.
	OpenFiles uint64
	// CDIFolders hold the spec files of CDI devices; the later beats the
	// earlier. None: there are no such devices.
	CDIFolders []string
	// ResolvConf and Hosts are the node's; default those of /etc.
	ResolvConf, Hosts string
	// RealServers is the resolv.conf of those who answer behind a resolver on
	// the node's loopback; default that of systemd-resolved.
	RealServers string
	// BootID tells one boot of the node from another; default the kernel's.
	BootID string
}

func (o *Options) complete() error {
	if o.Root == "" || o.Executor == nil || o.Images == nil || o.Network == nil {
		return fmt.Errorf("pods: root, executor, images and network must be given")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.History == nil {
		o.History = history.New()
	}
	if o.AppArmor == nil {
		o.AppArmor = &apparmor.Profiles{Log: o.Logger}
	}
	if o.SELinux == nil {
		o.SELinux = new(selinux.Node)
	}
	o.CgroupParent = cmp.Or(o.CgroupParent, "/cri-mini")
	o.ResolvConf = cmp.Or(o.ResolvConf, "/etc/resolv.conf")
	o.Hosts = cmp.Or(o.Hosts, "/etc/hosts")
	o.RealServers = cmp.Or(o.RealServers, "/run/systemd/resolve/resolv.conf")
	if o.BootID == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return fmt.Errorf("boot id: %w", err)
		}
		o.BootID = strings.TrimSpace(string(id))
	}
	return nil
}

// learn finds out once what does not change while we live.
func (o *Options) learn() (plan.Facts, error) {
	own, err := capability.Own()
	if err != nil {
		return plan.Facts{}, err
	}
	all, err := capability.Kernel()
	if err != nil {
		return plan.Facts{}, err
	}
	return plan.Facts{
		CgroupParent:    o.CgroupParent,
		SystemdCgroups:  o.SystemdCgroups,
		OpenFiles:       o.OpenFiles,
		OwnCapabilities: own,
		AllCapabilities: all,
		Hidden:          masked.Hidden(),
		Readonly:        masked.Readonly(),
	}, nil
}
