package plan

import (
	"cmp"
	"maps"
	"regexp"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

var (
	cpuList  = regexp.MustCompile(`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`)
	pageSize = regexp.MustCompile(`^[0-9]+(KB|MB|GB)$`)
	// cgroupFile is the name of a controller's file. The cgroup. files are
	// left out: one of them moves processes, another kills them.
	cgroupFile = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+$`)
)

// ResourcesField is where the limits of a new container are in its request, and
// UpdateField where those of an update are.
const (
	ResourcesField = "config.linux.resources."
	UpdateField    = "linux."
)

// Resources translates limits. Zero means not asked for, and on an update:
// leave as it is. The names of its errors begin with field.
func Resources(field string, asked *criapi.LinuxContainerResources) (spec.Resources, error) {
	if asked == nil {
		return spec.Resources{}, nil
	}
	if err := checkResources(field, asked); err != nil {
		return spec.Resources{}, err
	}
	r := spec.Resources{
		CPUPeriod:       asked.CpuPeriod,
		CPUQuota:        asked.CpuQuota,
		CPUShares:       asked.CpuShares,
		CpusetCpus:      asked.CpusetCpus,
		CpusetMems:      asked.CpusetMems,
		MemoryLimit:     asked.MemoryLimitInBytes,
		MemorySwapLimit: asked.MemorySwapLimitInBytes,
		Unified:         maps.Clone(asked.Unified),
	}
	for _, h := range asked.HugepageLimits {
		r.Hugepages = append(r.Hugepages, spec.HugepageLimit{PageSize: h.PageSize, Limit: h.Limit})
	}
	// Minus one takes a limit away, which zero cannot say.
	unlimited(&r, &r.MemoryLimit, "memory.max")
	unlimited(&r, &r.MemorySwapLimit, "memory.swap.max")
	return r, nil
}

func unlimited(r *spec.Resources, limit *int64, file string) {
	if *limit >= 0 {
		return
	}
	*limit = 0
	if r.Unified == nil {
		r.Unified = map[string]string{}
	}
	if _, asked := r.Unified[file]; !asked {
		r.Unified[file] = "max"
	}
}

func checkResources(prefix string, asked *criapi.LinuxContainerResources) error {
	switch {
	case asked.CpuPeriod < 0:
		return invalid(prefix+"cpu_period", asked.CpuPeriod, "is negative")
	case asked.CpuShares < 0:
		return invalid(prefix+"cpu_shares", asked.CpuShares, "is negative")
	case asked.MemoryLimitInBytes < -1:
		return invalid(prefix+"memory_limit_in_bytes", asked.MemoryLimitInBytes, "is negative")
	case asked.MemorySwapLimitInBytes < -1:
		return invalid(prefix+"memory_swap_limit_in_bytes", asked.MemorySwapLimitInBytes, "is negative")
	case asked.MemorySwapLimitInBytes > 0 && asked.MemorySwapLimitInBytes < asked.MemoryLimitInBytes:
		return invalid(prefix+"memory_swap_limit_in_bytes", asked.MemorySwapLimitInBytes,
			"counts memory and swap together, so it cannot be below the memory limit of %d", asked.MemoryLimitInBytes)
	case asked.OomScoreAdj < -1000 || asked.OomScoreAdj > 1000:
		return invalid(prefix+"oom_score_adj", asked.OomScoreAdj, "is not between -1000 and 1000")
	case asked.CpusetCpus != "" && !cpuList.MatchString(asked.CpusetCpus):
		return invalid(prefix+"cpuset_cpus", asked.CpusetCpus, "is not a list of CPUs")
	case asked.CpusetMems != "" && !cpuList.MatchString(asked.CpusetMems):
		return invalid(prefix+"cpuset_mems", asked.CpusetMems, "is not a list of nodes")
	}
	for i, h := range asked.HugepageLimits {
		if !pageSize.MatchString(h.PageSize) {
			return invalid(at(prefix+"hugepage_limits", i, "page_size"), h.PageSize, "is not a size like 2MB")
		}
	}
	for file, value := range asked.Unified {
		field := prefix + "unified[" + file + "]"
		if !cgroupFile.MatchString(file) || strings.HasPrefix(file, "cgroup.") {
			return invalid(field, value, "is not a limit")
		}
	}
	return nil
}

// MergeResources is what holds after an update: what it does not name stays.
// The score for the OOM killer belongs to each process, which hands it on to its
// children: it stays as it was at the start.
func MergeResources(old, update *criapi.LinuxContainerResources) *criapi.LinuxContainerResources {
	merged := &criapi.LinuxContainerResources{
		CpuPeriod:              cmp.Or(update.GetCpuPeriod(), old.GetCpuPeriod()),
		CpuQuota:               cmp.Or(update.GetCpuQuota(), old.GetCpuQuota()),
		CpuShares:              cmp.Or(update.GetCpuShares(), old.GetCpuShares()),
		MemoryLimitInBytes:     cmp.Or(update.GetMemoryLimitInBytes(), old.GetMemoryLimitInBytes()),
		OomScoreAdj:            old.GetOomScoreAdj(),
		CpusetCpus:             cmp.Or(update.GetCpusetCpus(), old.GetCpusetCpus()),
		CpusetMems:             cmp.Or(update.GetCpusetMems(), old.GetCpusetMems()),
		HugepageLimits:         old.GetHugepageLimits(),
		MemorySwapLimitInBytes: cmp.Or(update.GetMemorySwapLimitInBytes(), old.GetMemorySwapLimitInBytes()),
	}
	if len(update.GetHugepageLimits()) > 0 {
		merged.HugepageLimits = update.HugepageLimits
	}
	if len(old.GetUnified())+len(update.GetUnified()) > 0 {
		merged.Unified = map[string]string{}
		maps.Copy(merged.Unified, old.GetUnified())
		maps.Copy(merged.Unified, update.GetUnified())
	}
	return merged
}
