package spec

import "time"

// Stats is what a control group and all below it used up to At. A part is nil
// where the machine does not measure it.
type Stats struct {
	At     time.Time
	CPU    CPU
	Memory *Memory
	Swap   *Swap
	Pids   *Pids
	// Processes counts processes, however many threads they have.
	Processes uint64
	Hugetlb   []Hugetlb // by page size
	IO        []DeviceIO

	CPUPressure, MemoryPressure, IOPressure *Pressure
}

// CPU counts since the group was made. What follows the times is nil without
// the controller.
type CPU struct {
	Nanos, UserNanos, SystemNanos uint64

	Bandwidth *Bandwidth
	Limits    *CPULimits
}

// Bandwidth counts periods of the limit, and those in which it stopped
// somebody.
type Bandwidth struct {
	Periods, Throttled, ThrottledNanos uint64
}

// CPULimits are those in force.
type CPULimits struct {
	Shares uint64 // of the old hierarchy, as the kubelet speaks of them
	Quota  uint64 // µs in each period; 0: none
	Period uint64 // µs
}

// Memory is in bytes. WorkingSet is what would be hard to take away: all but
// the page cache that was not used lately; kubelets evict by it.
type Memory struct {
	Usage, WorkingSet, RSS, Cache, MappedFile uint64

	Kernel *uint64 // Linux 5.18
	Peak   *uint64 // Linux 5.19

	Limit       uint64 // 0: none
	Reservation uint64 // what is never taken away

	PageFaults, MajorPageFaults uint64

	// LimitHits counts how often usage was about to go over the limit,
	// OOMKills the processes that were killed for it.
	LimitHits, OOMKills uint64
}

// Swap is in bytes.
type Swap struct {
	Usage, Limit uint64
	Limited      bool // else Limit means nothing: 0 is a limit here
}

// Pids counts threads, as the kernel's limit does.
type Pids struct {
	Current, Limit uint64 // Limit 0: none
}

// Hugetlb is the use of huge pages of one size.
type Hugetlb struct {
	PageSize string // as the kernel names it: "2MB"
	Usage    uint64 // bytes
}

// DeviceIO is what went to and from one block device.
type DeviceIO struct {
	Major, Minor                         uint32
	Name                                 string // below /dev; empty when the kernel does not tell
	ReadBytes, WriteBytes, Reads, Writes uint64
}

// Pressure is how long work stood still for want of a resource: some of it, or
// all of it at once.
type Pressure struct{ Some, Full PressureTime }

// PressureTime is in percent of the last 10, 60 and 300 seconds, and in total.
type PressureTime struct {
	Avg10, Avg60, Avg300 float64
	Nanos                uint64
}

// Inside is what takes a look at each process of a container.
type Inside struct {
	Threads   uint64
	OpenFiles uint64 // descriptors of all processes
	// Sockets are those among them; nil when there are too many descriptors
	// to look at each.
	Sockets *uint64
	// OpenFilesLimit is the soft limit of the first process.
	OpenFilesLimit uint64
}

// Interface is a network interface of a pod with what went through it.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// DiskUsage is what a folder and all below it take on disk.
type DiskUsage struct {
	At     time.Time
	Bytes  uint64 // allocated
	Inodes uint64
}

// FileSystem is the size of one.
type FileSystem struct {
	Device             string // its block device; a number where that has no name
	Bytes, FreeBytes   uint64
	Inodes, FreeInodes uint64
}
