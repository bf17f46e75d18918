// Package masked lists the paths of /proc and /sys that ordinary containers do
// not get to see or to write.
//
// Hidden and Readonly are what the kubelet sends today for containers that are
// not privileged. They serve containers whose request says nothing; a request
// that says something, be it an empty list, is obeyed.
package masked

import (
	"path/filepath"
	"slices"
	"sync"
)

var hidden = []string{
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts", // tells keystrokes and the timing of others
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/powercap", // energy tells keys (CVE-2020-8694)
	"/sys/firmware",
}

// thermal counts events of each processor, another view on what others do.
const thermal = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"

var all = sync.OnceValue(func() []string {
	found, _ := filepath.Glob(thermal) // the pattern is well formed
	return append(slices.Clone(hidden), found...)
})

// Hidden are the paths to mask on this node.
func Hidden() []string { return slices.Clone(all()) }

// Readonly are the paths to make read-only.
func Readonly() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
