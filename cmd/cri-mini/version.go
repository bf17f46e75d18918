package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"cri-mini/image/layer"
	"cri-mini/runtime/apparmor"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/selinux"
)

type versionCmd struct{}

func (versionCmd) Run(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "cri-mini\t%s\ngo\t%s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	probed := probe(os.TempDir())
	for _, name := range slices.Sorted(maps.Keys(probed)) {
		fmt.Fprintf(table, "%s\t%s\n", name, probed[name])
	}
	return table.Flush()
}

// probe finds out what this machine offers, in words. EROFS depends on the
// file system of dir as well.
func probe(dir string) map[string]string {
	found := map[string]string{
		"kernel":       "unknown",
		"cgroups":      "none",
		"erofs layers": "no",
		"apparmor":     "no",
		"selinux":      "no",
		"seccomp":      "no",
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		found["kernel"] = unix.ByteSliceToString(uts.Release[:])
	}
	if root, err := cgroup.Find(); err != nil {
		found["cgroups"] = err.Error()
	} else {
		found["cgroups"] = describeCgroups(root)
	}
	if err := layer.Probe(dir); err != nil {
		found["erofs layers"] = "no: " + err.Error()
	} else {
		found["erofs layers"] = "yes"
	}
	if apparmor.Enabled() {
		found["apparmor"] = "yes"
	}
	if policy, err := new(selinux.Node).Policy(); err != nil {
		found["selinux"] = err.Error()
	} else if policy != nil {
		found["selinux"] = "yes"
	}
	if text, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail"); err == nil {
		found["seccomp"] = strings.TrimSpace(string(text))
	}
	return found
}

func describeCgroups(root cgroup.Root) string {
	controllers := strings.Join(root.Controllers(), " ")
	if controllers == "" {
		controllers = "no controllers"
	}
	return root.Path + ": " + controllers
}
