package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/image/registry"
	"cri-mini/internal/config"
	"cri-mini/podsandbox/network"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/cgroup/systemd"
)

// nodeChecks need no daemon.
func nodeChecks(c config.Config) []check {
	list := kernelChecks(c)
	list = append(list, controllers(), driver(c), registries(c), addresses(c))
	list = append(list, fileSystem("root", c.Root), fileSystem("state", c.State), volatile(c.State))
	return list
}

// kernelChecks are what version shows.
func kernelChecks(c config.Config) []check {
	probed := probe(cmp.Or(existing(c.Root), os.TempDir()))
	var list []check
	for _, name := range slices.Sorted(maps.Keys(probed)) {
		if name == "cgroups" {
			continue // has a check of its own
		}
		one := check{Name: name, Value: probed[name]}
		if name == "seccomp" && !strings.Contains(probed[name], "errno") {
			one.wrong("the kernel has no seccomp filters: containers with a profile do not start", "use a kernel with CONFIG_SECCOMP_FILTER")
		}
		if name == "kernel" {
			one.release()
		}
		list = append(list, one)
	}
	return list
}

// release judges the kernel by its number: what it lacks would show only at the
// first container. One that cannot be read is not judged.
func (c *check) release() {
	var major, minor int
	if n, _ := fmt.Sscanf(c.Value, "%d.%d", &major, &minor); n < 2 {
		return
	}
	older := func(than int) bool { return major < 6 || major == 6 && minor < than }
	switch {
	case older(15):
		c.wrong("no container starts: the kernel cannot clone detached mounts (Linux 6.15)", "use Linux 6.17 or later")
	case older(17):
		c.notice("pods whose containers share a PID namespace do not start: the kernel has no procfs of another PID namespace (Linux 6.17)", "use Linux 6.17 or later")
	}
}

// existing is the nearest folder above that is there.
func existing(dir string) string {
	for dir != "/" {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func controllers() check {
	one := check{Name: "cgroups"}
	root, err := cgroup.Find()
	if err != nil {
		one.Value = "none"
		one.wrong(err.Error(), "mount cgroup2")
		return one
	}
	one.Value = describeCgroups(root)
	have := root.Controllers()
	const do = "boot without cgroup v1 (systemd.unified_cgroup_hierarchy=1), or enable them"
	if list := without(have, "cpu", "memory", "pids"); list != "" {
		one.wrong("controllers are missing: "+list+". A container with such a limit is refused, and its memory is not measured", do)
	}
	if list := without(have, "cpuset", "io", "hugetlb"); list != "" {
		one.notice("controllers are missing: "+list, do)
	}
	return one
}

// without gives the names that are not there.
func without(have []string, names ...string) string {
	return strings.Join(slices.DeleteFunc(names, func(n string) bool { return slices.Contains(have, n) }), " ")
}

func driver(c config.Config) check {
	one := check{Name: "cgroup driver", Value: c.CgroupDriver}
	switch booted := systemd.Booted(); {
	case c.CgroupDriver == "systemd" && !booted:
		one.wrong("the first process is not systemd: the daemon does not start", "set cgroup-driver to auto or cgroupfs")
	case c.CgroupDriver == "cgroupfs" && booted:
		one.notice("systemd owns the tree of control groups here and may change ours", "set cgroup-driver to auto, and the kubelet's cgroupDriver to systemd")
	}
	return one
}

func registries(c config.Config) check {
	one := check{Name: "registries"}
	names, wrong, err := registry.CheckConfig(c.RegistryConfigDir)
	one.Value = fmt.Sprintf("%s: %d configured", c.RegistryConfigDir, len(names))
	if err != nil {
		one.wrong(err.Error(), "make it readable")
	}
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		one.wrong(fmt.Sprintf("%s: %s", name, wrong[name]), "correct it: pulls from there do not work")
	}
	return one
}

func addresses(c config.Config) check {
	one := check{Name: "pod network", Value: c.Network}
	options, err := networkOptions(c)
	if err != nil {
		one.wrong(err.Error(), "correct the configuration")
		return one
	}
	subnets, found, err := network.Check(options)
	if err != nil {
		one.wrong(err.Error(), "")
		return one
	}
	if len(subnets) > 0 {
		one.Value += ", built-in addresses " + strings.Join(texts(subnets), " ")
	}
	one.Findings = found
	return one
}

func texts(list []netip.Prefix) []string {
	var all []string
	for _, p := range list {
		all = append(all, p.String())
	}
	return all
}

// The least that is to be free, in percent: below it, and below half of it.
const leastFree = 10

func fileSystem(name, dir string) check {
	one := check{Name: name, Value: dir}
	var st unix.Statfs_t
	if err := unix.Statfs(existing(dir), &st); err != nil {
		one.wrong(err.Error(), "")
		return one
	}
	one.Value = fmt.Sprintf("%s: %d of %d MiB free", dir, st.Bavail*uint64(st.Bsize)>>20, st.Blocks*uint64(st.Bsize)>>20)
	one.room("space", st.Bavail, st.Blocks)
	if st.Files > 0 { // btrfs has no count
		one.Value += fmt.Sprintf(", %d of %d inodes", st.Ffree, st.Files)
		one.room("inodes", st.Ffree, st.Files)
	}
	return one
}

func (c *check) room(what string, free, all uint64) {
	if all == 0 {
		return
	}
	percent := float64(free) * 100 / float64(all)
	why, do := fmt.Sprintf("only %.1f %% of its %s are free", percent, what), "remove images (cri-mini images, rmi), or what else fills it"
	switch {
	case percent < leastFree/2:
		c.wrong(why, do)
	case percent < leastFree:
		c.notice(why, do)
	}
}

// volatile wants a place that a reboot empties: a note of a process that outlives
// the process would be believed.
func volatile(dir string) check {
	one := check{Name: "state folder", Value: dir}
	var st unix.Statfs_t
	if err := unix.Statfs(existing(dir), &st); err != nil {
		one.wrong(err.Error(), "")
		return one
	}
	if st.Type != unix.TMPFS_MAGIC {
		one.notice("it is on a disk: slower, and a reboot does not empty it", "put it on a tmpfs such as /run")
	}
	return one
}
