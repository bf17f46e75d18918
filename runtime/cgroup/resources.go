package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
)

// Resources are the limits of a group. A zero value leaves a limit as it is.
//
// A machine may lack a controller. What asks for a limit is then an error
// (ErrControllerMissing); what only says "no limit" is neutral, written where
// there is a file for it and left out where there is none. A kubelet names
// most fields for every container, so this decides which pods can run there:
//
//	field            neutral                        because
//	CPUShares        2, 1024                        least the kubelet sends; the kernel's default
//	CPUQuota         below 0                        no limit
//	CPUPeriod        without a quota                a period alone limits nothing
//	MemoryLimit      below 0                        no limit
//	MemorySwapLimit  below 0, or no swap left over  no limit; without swap files there is nothing to forbid
//	PidsLimit        below 0                        no limit
//	HugepageLimits   0                              sent for every page size of the host
//	Unified          see neutralValues
type Resources struct {
	CPUPeriod, CPUQuota, CPUShares int64 // microseconds, microseconds, shares of the old hierarchy
	CpusetCpus, CpusetMems         string
	MemoryLimit                    int64 // bytes
	MemorySwapLimit                int64 // bytes of memory and swap together
	PidsLimit                      int64
	HugepageLimits                 []HugepageLimit
	// Unified are values for files by name, written last. Only files of
	// controllers: those of the core (cgroup.procs, cgroup.kill) are no limits.
	Unified map[string]string

	// Devices are allowed beside the default list; AllowAllDevices is for
	// privileged containers and for the groups of pods. Only Create looks at
	// them.
	Devices         []DeviceRule
	AllowAllDevices bool
}

// HugepageLimit limits the huge pages of one size ("2MB", "1GB") in bytes.
type HugepageLimit struct {
	PageSize string
	Limit    uint64
}

// setting is one value for one file.
type setting struct {
	controller, file string
	field, asked     string // for errors
	value            string
	merge            func(current func(file string) (string, error)) (string, error) // instead of value
	neutral          bool
}

// controllers are those of the kernel; the name of a file begins with one.
var controllers = []string{"cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "misc", "dmem"}

// neutralValues of Unified: files that a kubelet always names, with the values
// that limit nothing.
var neutralValues = map[string][]string{
	"memory.min":       {"0"},
	"memory.low":       {"0"},
	"memory.high":      {"max"},
	"memory.max":       {"max"},
	"memory.swap.max":  {"max", "0"},
	"memory.oom.group": {"0", "1"}, // says who dies with whom, and nobody dies without a limit
	"pids.max":         {"max"},
	"cpu.max":          {"max", "max 100000"},
	"cpu.weight":       {"1", "100"},
	"cpu.idle":         {"0"},
}

const noLimit = "max"

// settings translates the resources, in the order of writing.
func (r Resources) settings() ([]setting, error) {
	var all []setting
	for _, part := range []func() ([]setting, error){r.cpu, r.memory, r.pids, r.hugepages, r.unified} {
		some, err := part()
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// Values are what the resources say of some files, where they say one value.
func (r Resources) Values(files ...string) (map[string]string, error) {
	settings, err := r.settings()
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, s := range settings {
		if s.merge == nil && slices.Contains(files, s.file) {
			values[s.file] = s.value
		}
	}
	return values, nil
}

func (r Resources) cpu() ([]setting, error) {
	var all []setting
	if r.CpusetCpus != "" {
		all = append(all, setting{controller: "cpuset", file: "cpuset.cpus", field: "cpuset_cpus", asked: strconv.Quote(r.CpusetCpus), value: r.CpusetCpus})
	}
	if r.CpusetMems != "" {
		all = append(all, setting{controller: "cpuset", file: "cpuset.mems", field: "cpuset_mems", asked: strconv.Quote(r.CpusetMems), value: r.CpusetMems})
	}
	switch {
	case r.CPUShares < 0:
		return nil, badLimit("cpu_shares", decimal(r.CPUShares), "below 0")
	case r.CPUShares > 0:
		// The curve that runc, crun and containerd agreed on in 2025: it meets
		// both ends and makes 1024 shares the default weight of 100, where the
		// straight line before gave 39 (github.com/opencontainers/runc/pull/4785).
		weight := cgroup2.ConvertCPUSharesToCgroupV2Value(uint64(r.CPUShares))
		all = append(all, setting{
			controller: "cpu", file: "cpu.weight", field: "cpu_shares", asked: decimal(r.CPUShares),
			value: strconv.FormatUint(weight, 10), neutral: r.CPUShares <= 2 || r.CPUShares == 1024,
		})
	}
	if r.CPUPeriod < 0 {
		return nil, badLimit("cpu_period", decimal(r.CPUPeriod), "below 0")
	}
	if s, ok := r.cpuMax(); ok {
		all = append(all, s)
	}
	return all, nil
}

// cpuMax joins quota and period, which live in one file.
func (r Resources) cpuMax() (setting, bool) {
	s := setting{controller: "cpu", file: "cpu.max", field: "cpu_quota", asked: decimal(r.CPUQuota)}
	switch {
	case r.CPUQuota == 0 && r.CPUPeriod == 0:
		return s, false
	case r.CPUQuota == 0: // keep the quota of before
		s.field, s.asked, s.neutral = "cpu_period", decimal(r.CPUPeriod), true
		s.merge = func(current func(string) (string, error)) (string, error) {
			now, err := current("cpu.max")
			quota, _, _ := strings.Cut(now, " ")
			return quota + " " + decimal(r.CPUPeriod), err
		}
		return s, true
	case r.CPUQuota < 0:
		s.value, s.neutral = noLimit, true
	default:
		s.value = decimal(r.CPUQuota)
	}
	if r.CPUPeriod > 0 { // the kernel keeps the period when it is not named
		s.value += " " + decimal(r.CPUPeriod)
	}
	return s, true
}

func (r Resources) memory() ([]setting, error) {
	var all []setting
	if r.MemoryLimit != 0 {
		all = append(all, limit("memory", "memory.max", "memory_limit_in_bytes", r.MemoryLimit))
	}
	swap, err := r.swapMax()
	if err != nil || swap == nil {
		return all, err
	}
	return append(all, *swap), nil
}

// swapMax turns memory and swap together, as the old hierarchy counted, into
// swap alone.
func (r Resources) swapMax() (*setting, error) {
	const file = "memory.swap.max"
	s := setting{controller: "memory", file: file, field: "memory_swap_limit_in_bytes", asked: decimal(r.MemorySwapLimit)}
	switch {
	case r.MemorySwapLimit == 0:
		return nil, nil
	case r.MemorySwapLimit < 0:
		s.value, s.neutral = noLimit, true
	case r.MemoryLimit < 0:
		s.value = decimal(r.MemorySwapLimit) // of unlimited memory nothing can be taken off
	case r.MemoryLimit > r.MemorySwapLimit:
		return nil, badLimit(s.field, s.asked, "below memory_limit_in_bytes %d, which it includes", r.MemoryLimit)
	case r.MemoryLimit > 0:
		s.value = decimal(r.MemorySwapLimit - r.MemoryLimit)
		s.neutral = r.MemorySwapLimit == r.MemoryLimit
	default: // an update of the swap alone
		s.merge = func(current func(string) (string, error)) (string, error) {
			now, err := current("memory.max")
			if err != nil {
				return "", err
			}
			limit, err := strconv.ParseInt(now, 10, 64)
			if err != nil || limit > r.MemorySwapLimit {
				return "", fmt.Errorf("memory.max is %s", now)
			}
			return decimal(r.MemorySwapLimit - limit), nil
		}
	}
	return &s, nil
}

func (r Resources) pids() ([]setting, error) {
	if r.PidsLimit == 0 {
		return nil, nil
	}
	return []setting{limit("pids", "pids.max", "pids_limit", r.PidsLimit)}, nil
}

func limit(controller, file, field string, n int64) setting {
	s := setting{controller: controller, file: file, field: field, asked: decimal(n), value: decimal(n)}
	if n < 0 {
		s.value, s.neutral = noLimit, true
	}
	return s
}

func (r Resources) hugepages() ([]setting, error) {
	var all []setting
	for _, h := range r.HugepageLimits {
		if h.PageSize == "" || strings.Trim(h.PageSize, "0123456789KMGTB") != "" {
			return nil, badLimit("hugepage_limits", strconv.Quote(h.PageSize), "want a page size like 2MB")
		}
		s := setting{
			controller: "hugetlb", file: "hugetlb." + h.PageSize + ".max",
			field: "hugepage_limits[" + h.PageSize + "]", asked: strconv.FormatUint(h.Limit, 10),
			value: strconv.FormatUint(h.Limit, 10), neutral: h.Limit == 0,
		}
		// The limit counts pages in use. Reserved ones have a limit of their
		// own since 5.7: without it a program could reserve all and be killed
		// only when it touches them.
		reserved := s
		reserved.file, reserved.neutral = "hugetlb."+h.PageSize+".rsvd.max", true
		all = append(all, s, reserved)
	}
	return all, nil
}

func (r Resources) unified() ([]setting, error) {
	var all []setting
	for file, value := range r.Unified {
		controller, _, ok := strings.Cut(file, ".")
		if !ok || strings.Contains(file, "/") || !slices.Contains(controllers, controller) {
			return nil, badLimit("unified["+file+"]", strconv.Quote(value), "not a file of a cgroup controller")
		}
		value = strings.TrimSpace(value)
		if value == "" || len(value) > 4096 {
			return nil, badLimit("unified["+file+"]", strconv.Quote(value[:min(len(value), 32)]), "value of %d bytes", len(value))
		}
		all = append(all, setting{
			controller: controller, file: file, field: "unified[" + file + "]", asked: strconv.Quote(value),
			value: value, neutral: slices.Contains(neutralValues[file], value),
		})
	}
	slices.SortFunc(all, func(a, b setting) int { return strings.Compare(a.file, b.file) })
	return all, nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
