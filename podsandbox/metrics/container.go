package metrics

import (
	"path"
	"slices"
	"strconv"

	"cri-mini/runtime/spec"
)

// ofContainers is the table of the metrics of a container.
var ofContainers = slices.Concat(cpuTable, memoryTable, diskTable, hugetlbTable, processTable, pressureTable, otherTable)

var cpuTable = []row[Container]{
	{"container_cpu_usage_seconds_total", "Processor time used, in seconds.", Counter, []string{"cpu"},
		func(c *Container) []value { return one(seconds(c.Usage.CPU.Nanos), "total") }},
	{"container_cpu_user_seconds_total", "Processor time used in user mode, in seconds.", Counter, nil,
		func(c *Container) []value { return one(seconds(c.Usage.CPU.UserNanos)) }},
	{"container_cpu_system_seconds_total", "Processor time used in the kernel, in seconds.", Counter, nil,
		func(c *Container) []value { return one(seconds(c.Usage.CPU.SystemNanos)) }},
	{"container_cpu_cfs_periods_total", "Periods of the processor limit in which something ran.", Counter, nil,
		bandwidth(func(b *spec.Bandwidth) uint64 { return b.Periods })},
	{"container_cpu_cfs_throttled_periods_total", "Periods in which the processor limit stopped something.", Counter, nil,
		bandwidth(func(b *spec.Bandwidth) uint64 { return b.Throttled })},
	{"container_cpu_cfs_throttled_seconds_total", "Time for which the processor limit stopped something, in seconds.", Counter, nil,
		bandwidth(func(b *spec.Bandwidth) uint64 { return seconds(b.ThrottledNanos) })},
	{"container_spec_cpu_period", "Length of a period of the processor limit, in microseconds.", Gauge, nil,
		cpuLimit(func(l *spec.CPULimits) []value { return one(l.Period) })},
	{"container_spec_cpu_quota", "Processor time allowed in each period, in microseconds; absent without a limit.", Gauge, nil,
		cpuLimit(func(l *spec.CPULimits) []value {
			if l.Quota == 0 {
				return nil
			}
			return one(l.Quota)
		})},
	{"container_spec_cpu_shares", "Share of the processor beside others.", Gauge, nil,
		cpuLimit(func(l *spec.CPULimits) []value { return one(l.Shares) })},
}

func bandwidth(get func(*spec.Bandwidth) uint64) func(*Container) []value {
	return func(c *Container) []value {
		if c.Usage.CPU.Bandwidth == nil || c.Usage.CPU.Limits == nil {
			return nil // counted, but nothing can be limited
		}
		return one(get(c.Usage.CPU.Bandwidth))
	}
}

func cpuLimit(get func(*spec.CPULimits) []value) func(*Container) []value {
	return func(c *Container) []value {
		if c.Usage.CPU.Limits == nil {
			return nil
		}
		return get(c.Usage.CPU.Limits)
	}
}

var memoryTable = []row[Container]{
	{"container_memory_cache", "Page cache, in bytes.", Gauge, nil, memory(func(m *spec.Memory) []value { return one(m.Cache) })},
	{"container_memory_rss", "Anonymous memory, in bytes.", Gauge, nil, memory(func(m *spec.Memory) []value { return one(m.RSS) })},
	{"container_memory_kernel_usage", "Memory that the kernel uses for the container, in bytes.", Gauge, nil,
		memory(func(m *spec.Memory) []value { return perhaps(m.Kernel) })},
	{"container_memory_mapped_file", "Page cache that is mapped, in bytes.", Gauge, nil, memory(func(m *spec.Memory) []value { return one(m.MappedFile) })},
	{"container_memory_usage_bytes", "All memory in use, whenever it was used last, in bytes.", Gauge, nil,
		memory(func(m *spec.Memory) []value { return one(m.Usage) })},
	{"container_memory_working_set_bytes", "Memory in use that would be hard to take away, in bytes.", Gauge, nil,
		memory(func(m *spec.Memory) []value { return one(m.WorkingSet) })},
	{"container_memory_max_usage_bytes", "Highest memory usage ever, in bytes.", Gauge, nil,
		memory(func(m *spec.Memory) []value { return perhaps(m.Peak) })},
	{"container_memory_failcnt", "How often the memory limit was met.", Counter, nil, memory(func(m *spec.Memory) []value { return one(m.LimitHits) })},
	{"container_memory_failures_total", "Page faults.", Counter, []string{"failure_type", "scope"}, memory(faults)},
	{"container_oom_events_total", "Processes that were killed for want of memory.", Counter, nil,
		memory(func(m *spec.Memory) []value { return one(m.OOMKills) })},
	{"container_spec_memory_limit_bytes", "Memory limit, in bytes; 0 for none.", Gauge, nil,
		memory(func(m *spec.Memory) []value { return one(m.Limit) })},
	{"container_spec_memory_reservation_limit_bytes", "Memory that is never taken away, in bytes.", Gauge, nil,
		memory(func(m *spec.Memory) []value { return one(m.Reservation) })},
	{"container_memory_swap", "Swap in use, in bytes.", Gauge, nil, swap(func(s *spec.Swap) uint64 { return s.Usage })},
	{"container_spec_memory_swap_limit_bytes", "Swap limit, in bytes; 0 also for none.", Gauge, nil, swap(func(s *spec.Swap) uint64 { return s.Limit })},
}

func memory(get func(*spec.Memory) []value) func(*Container) []value {
	return func(c *Container) []value {
		if c.Usage.Memory == nil {
			return nil
		}
		return get(c.Usage.Memory)
	}
}

// faults are given for both scopes that dashboards ask for. The kernel counts
// a group with all below it, and all below it is the container's own.
func faults(m *spec.Memory) []value {
	return []value{
		{n: m.PageFaults, labels: []string{"pgfault", "container"}},
		{n: m.PageFaults, labels: []string{"pgfault", "hierarchy"}},
		{n: m.MajorPageFaults, labels: []string{"pgmajfault", "container"}},
		{n: m.MajorPageFaults, labels: []string{"pgmajfault", "hierarchy"}},
	}
}

func swap(get func(*spec.Swap) uint64) func(*Container) []value {
	return func(c *Container) []value {
		if c.Usage.Swap == nil {
			return nil
		}
		return one(get(c.Usage.Swap))
	}
}

var diskTable = []row[Container]{
	{"container_fs_usage_bytes", "What the writable layer takes on disk, in bytes.", Gauge, []string{"device"},
		func(c *Container) []value {
			if c.Writable == nil || c.Disk == nil {
				return nil
			}
			return []value{{n: c.Writable.Bytes, at: c.Writable.At, labels: []string{c.Disk.Device}}}
		}},
	{"container_fs_limit_bytes", "Size of the file system of the writable layer, in bytes.", Gauge, []string{"device"},
		disk(func(d *spec.FileSystem) uint64 { return d.Bytes })},
	{"container_fs_inodes_total", "Inodes of the file system of the writable layer.", Gauge, []string{"device"},
		disk(func(d *spec.FileSystem) uint64 { return d.Inodes })},
	{"container_fs_inodes_free", "Free inodes of the file system of the writable layer.", Gauge, []string{"device"},
		disk(func(d *spec.FileSystem) uint64 { return d.FreeInodes })},
	{"container_fs_reads_bytes_total", "Bytes read from a device.", Counter, []string{"device"},
		devices(func(d spec.DeviceIO) uint64 { return d.ReadBytes })},
	{"container_fs_reads_total", "Reads from a device.", Counter, []string{"device"},
		devices(func(d spec.DeviceIO) uint64 { return d.Reads })},
	{"container_fs_writes_bytes_total", "Bytes written to a device.", Counter, []string{"device"},
		devices(func(d spec.DeviceIO) uint64 { return d.WriteBytes })},
	{"container_fs_writes_total", "Writes to a device.", Counter, []string{"device"},
		devices(func(d spec.DeviceIO) uint64 { return d.Writes })},
	{"container_blkio_device_usage_total", "Bytes that went to and from a device.", Counter, []string{"device", "major", "minor", "operation"},
		func(c *Container) (list []value) {
			for _, d := range c.Usage.IO {
				labels := []string{deviceName(d), strconv.FormatUint(uint64(d.Major), 10), strconv.FormatUint(uint64(d.Minor), 10)}
				list = append(list,
					value{n: d.ReadBytes, labels: append(slices.Clone(labels), "Read")},
					value{n: d.WriteBytes, labels: append(slices.Clone(labels), "Write")})
			}
			return list
		}},
}

func disk(get func(*spec.FileSystem) uint64) func(*Container) []value {
	return func(c *Container) []value {
		if c.Disk == nil {
			return nil
		}
		return one(get(c.Disk), c.Disk.Device)
	}
}

func devices(get func(spec.DeviceIO) uint64) func(*Container) []value {
	return func(c *Container) (list []value) {
		for _, d := range c.Usage.IO {
			list = append(list, value{n: get(d), labels: []string{deviceName(d)}})
		}
		return list
	}
}

func deviceName(d spec.DeviceIO) string {
	if d.Name == "" {
		return strconv.FormatUint(uint64(d.Major), 10) + ":" + strconv.FormatUint(uint64(d.Minor), 10)
	}
	return path.Join("/dev", d.Name)
}

var hugetlbTable = []row[Container]{
	{"container_hugetlb_usage_bytes", "Huge pages in use, in bytes.", Gauge, []string{"pagesize"},
		func(c *Container) (list []value) {
			for _, h := range c.Usage.Hugetlb {
				list = append(list, value{n: h.Usage, labels: []string{h.PageSize}})
			}
			return list
		}},
	// The kernel does not keep it.
	{"container_hugetlb_max_usage_bytes", "Highest use of huge pages that was seen, in bytes.", Gauge, []string{"pagesize"},
		func(c *Container) (list []value) {
			for _, h := range c.Usage.Hugetlb {
				list = append(list, value{n: max(h.Usage, c.HugetlbPeaks[h.PageSize]), labels: []string{h.PageSize}})
			}
			return list
		}},
}

var processTable = []row[Container]{
	{"container_processes", "Processes in the container.", Gauge, nil, func(c *Container) []value { return one(c.Usage.Processes) }},
	{"container_threads", "Threads in the container.", Gauge, nil, func(c *Container) []value {
		if c.Usage.Pids != nil {
			return one(c.Usage.Pids.Current)
		}
		return inside(func(i *spec.Inside) []value { return one(i.Threads) })(c)
	}},
	{"container_threads_max", "Threads that the container may have; 0 for no limit.", Gauge, nil, func(c *Container) []value {
		if c.Usage.Pids == nil {
			return nil
		}
		return one(c.Usage.Pids.Limit)
	}},
	{"container_file_descriptors", "Open file descriptors of all processes.", Gauge, nil,
		inside(func(i *spec.Inside) []value { return one(i.OpenFiles) })},
	{"container_sockets", "Open file descriptors that are sockets.", Gauge, nil, inside(func(i *spec.Inside) []value { return perhaps(i.Sockets) })},
	{"container_ulimits_soft", "Soft limits of the first process.", Gauge, []string{"ulimit"},
		inside(func(i *spec.Inside) []value { return one(i.OpenFilesLimit, "max_open_files") })},
}

func inside(get func(*spec.Inside) []value) func(*Container) []value {
	return func(c *Container) []value {
		if c.Inside == nil {
			return nil
		}
		return get(c.Inside)
	}
}

var pressureTable = []row[Container]{
	{"container_pressure_cpu_waiting_seconds_total", "Time in which some work waited for a processor, in seconds.", Counter, nil,
		waiting(func(c *Container) *spec.Pressure { return c.Usage.CPUPressure })},
	{"container_pressure_cpu_stalled_seconds_total", "Time in which all work waited for a processor, in seconds.", Counter, nil,
		stalled(func(c *Container) *spec.Pressure { return c.Usage.CPUPressure })},
	{"container_pressure_memory_waiting_seconds_total", "Time in which some work waited for memory, in seconds.", Counter, nil,
		waiting(func(c *Container) *spec.Pressure { return c.Usage.MemoryPressure })},
	{"container_pressure_memory_stalled_seconds_total", "Time in which all work waited for memory, in seconds.", Counter, nil,
		stalled(func(c *Container) *spec.Pressure { return c.Usage.MemoryPressure })},
	{"container_pressure_io_waiting_seconds_total", "Time in which some work waited for a device, in seconds.", Counter, nil,
		waiting(func(c *Container) *spec.Pressure { return c.Usage.IOPressure })},
	{"container_pressure_io_stalled_seconds_total", "Time in which all work waited for a device, in seconds.", Counter, nil,
		stalled(func(c *Container) *spec.Pressure { return c.Usage.IOPressure })},
}

func waiting(get func(*Container) *spec.Pressure) func(*Container) []value {
	return func(c *Container) []value {
		p := get(c)
		if p == nil {
			return nil
		}
		return one(seconds(p.Some.Nanos))
	}
}

func stalled(get func(*Container) *spec.Pressure) func(*Container) []value {
	return func(c *Container) []value {
		p := get(c)
		if p == nil {
			return nil
		}
		return one(seconds(p.Full.Nanos))
	}
}

var otherTable = []row[Container]{
	{"container_last_seen", "When the container was measured, in seconds since 1970.", Gauge, nil,
		func(c *Container) []value { return one(uint64(c.Seen.Unix())) }},
	{"container_start_time_seconds", "When the container was started, in seconds since 1970.", Gauge, nil,
		func(c *Container) []value { return one(uint64(c.Started.Unix())) }},
}
