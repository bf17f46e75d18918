package podsandbox

import (
	"log/slog"
)

// Options is what Pods works with. The fields without "default" must be set.
type Options struct {
	Root     string // durable folder of this instance, ours below pods and containers
	Executor Executor
	Images   Images
	Network  Network
	Logger   *slog.Logger

	// Handlers are the runtime handlers that exist besides "".
	Handlers []string
	// CgroupParent is where pods without a cgroup parent live.
	CgroupParent string
	// SystemdCgroups names the cgroup of a container cri-mini-<id>.scope, as
	// the kubelet expects with its systemd driver, instead of <id>.
	SystemdCgroups bool
	// OpenFiles is RLIMIT_NOFILE of every process; 0 leaves the monitor's own.
	OpenFiles uint64
	// ResolvConf is the node's resolver file; default /etc/resolv.conf.
	ResolvConf string
	// BootID tells one boot of the node from another; default the kernel's.
	BootID string
}
