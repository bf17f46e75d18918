package masked

import (
	"os"
	"slices"
	"testing"
)

func TestListIsTheKubelets(t *testing.T) {
	got := Hidden()
	for _, path := range []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	} {
		if !slices.Contains(got, path) {
			t.Errorf("%s is not hidden", path)
		}
	}
	const first = "/sys/devices/system/cpu/cpu0/thermal_throttle"
	if _, err := os.Stat(first); err == nil && !slices.Contains(got, first) {
		t.Errorf("%s is there and not hidden", first)
	}
	got[0] = "changed"
	if slices.Contains(Hidden(), "changed") {
		t.Error("a caller can change the list")
	}
}
