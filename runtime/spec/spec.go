// Package spec says what a sandbox, a container and a process are to the
// executor: plain data without defaults, clocks or kernel objects. Whoever
// asks for a container fills it in; the executor obeys.
//
// A Sandbox is a set of shared namespaces. A Container is a root file system,
// mounts, a cgroup and a first Process. The package imports nothing of ours.
package spec

import "time"

// Sandbox asks for the namespaces that the containers of a pod share.
type Sandbox struct {
	ID       string
	Hostname string // set in the UTS namespace; empty with HostUTS

	// A namespace that is not made is the node's own.
	HostNetwork bool
	HostIPC     bool
	HostUTS     bool // only together with HostNetwork

	// SharedPID asks for a PID namespace for the whole pod, whose first
	// process is our reaping init.
	SharedPID bool

	// IDs, when not nil, puts all namespaces of the pod under a new user
	// namespace with this mapping.
	IDs *IDMapping

	// Sysctls are values by path below /proc/sys, written in the namespaces
	// made above.
	Sysctls map[string]string
	ShmSize int64 // bytes of /dev/shm, shared by the containers
	// Label is the SELinux label of /dev/shm; see Rootfs.
	Label string `json:",omitempty"`

	// Cgroup is the group of the reaping init, a path below the cgroup root.
	Cgroup string
}

// IDMapping maps Length ids from 0 in the container to Host in the node, the
// same for users and groups (cri-api UserNamespace).
type IDMapping struct {
	Host   uint32
	Length uint32
}

// Overlaps says whether some id of the node is in both.
func (m IDMapping) Overlaps(n IDMapping) bool {
	return uint64(m.Host) < uint64(n.Host)+uint64(n.Length) && uint64(n.Host) < uint64(m.Host)+uint64(m.Length)
}

// Container asks for one container in a sandbox.
type Container struct {
	ID      string
	Sandbox string

	Rootfs         Rootfs
	ReadonlyRootfs bool

	// Mounts are made in this order on top of the default ones (/proc, /sys,
	// /dev, /dev/pts, /dev/mqueue, /dev/shm, /sys/fs/cgroup). One with the
	// target of a default mount replaces it.
	Mounts        []Mount
	Devices       []Device
	MaskedPaths   []string
	ReadonlyPaths []string
	Privileged    bool // /sys and the cgroup file system are writable

	PID PIDMode
	// TargetContainer is whose PID namespace is joined with PIDTarget.
	TargetContainer string

	Cgroup    string // path below the cgroup root, of this container alone
	Resources Resources

	Process Process

	Stdin     bool   // keep a pipe open for attach
	StdinOnce bool   // close it when the first attach ends
	LogPath   string // CRI log file on the host; empty means no log
	// LogRoot is a folder above LogPath. Links are followed up to it and not
	// below.
	LogRoot string `json:",omitempty"`
}

// Rootfs is a stack of image layers with a writable one on top.
type Rootfs struct {
	Layers []Layer // bottom first; at least one
	// Writable is a folder of this container alone, in which the executor
	// makes the upper and work folders of overlayfs. It must be absent or
	// what an earlier call with the same container made.
	Writable string
	// IDs, when not nil, is the mapping of the pod: files that belong to 0 on
	// disk belong to the root of its user namespace.
	IDs *IDMapping
	// Label is the SELinux label of every file, here and in what else is made
	// for the container: /dev, tmpfs, images. Empty leaves it to the policy.
	Label string `json:",omitempty"`
}

// Layer is an unpacked image layer on the host.
type Layer struct {
	Path string
	Form LayerForm
}

// LayerForm is how a layer lies on disk.
type LayerForm string

const (
	DirectoryLayer LayerForm = "directory"
	ErofsLayer     LayerForm = "erofs"
)

// PIDMode says whose processes a container sees.
type PIDMode string

const (
	PIDContainer PIDMode = "container" // its own
	PIDPod       PIDMode = "pod"       // those of the sandbox's shared namespace
	PIDNode      PIDMode = "node"
	PIDTarget    PIDMode = "target" // those of TargetContainer
)

// MountKind tells what a mount shows.
type MountKind string

const (
	BindMount  MountKind = "bind"  // Source, a path on the host
	ImageMount MountKind = "image" // Layers, read-only, at SubPath
	TmpfsMount MountKind = "tmpfs" // empty, of Size bytes
)

// Propagation is how mounts made later pass between host and container.
type Propagation string

const (
	Private         Propagation = "private"
	HostToContainer Propagation = "slave"
	Bidirectional   Propagation = "shared"
)

// Mount is one mount asked for by the user of the container.
type Mount struct {
	Kind   MountKind
	Target string // absolute path in the container; made when missing

	Source      string // bind: must exist; symbolic links are followed
	Propagation Propagation

	Layers  []Layer // image
	SubPath string  // image: relative, must exist, confined to the image

	Size int64  // tmpfs: bytes; 0 leaves it to the kernel
	Mode uint32 `json:",omitempty"` // tmpfs: permissions; 0 means 01777

	// Alone leaves out what is mounted below the source of a bind.
	Alone             bool `json:",omitempty"`
	ReadOnly          bool
	RecursiveReadOnly bool // submounts as well
	NoExec            bool
	NoDev             bool
	NoSuid            bool

	IDs *IDMapping // id-mapped mount

	// Relabel gives what a bind mount shows the label of the root file
	// system, on the host and for good.
	Relabel bool `json:",omitempty"`
}

// Device is a device node of the host shown in the container.
type Device struct {
	HostPath      string
	ContainerPath string
	Permissions   string // of "rwm"; empty leaves the device filter as it is

	// Kind, when not empty, says with the numbers what the node is, and the
	// host needs none.
	Kind         DeviceKind `json:",omitempty"`
	Major, Minor uint32     `json:",omitempty"`

	// Of the node in the container; nil means as on the host.
	Mode     *uint32 `json:",omitempty"` // permissions
	UID, GID *uint32 `json:",omitempty"` // in the container
}

// DeviceKind is a type of node, in the letters of mknod(1).
type DeviceKind string

const (
	CharacterDevice DeviceKind = "c"
	BlockDevice     DeviceKind = "b"
	Pipe            DeviceKind = "p"
)

// Process is a program to run: the first one of a container, or one joining
// it later.
type Process struct {
	Args []string // Args[0] without a slash is looked up in PATH of Env
	Env  []string
	Cwd  string // absolute; made when missing for a first process

	Terminal bool
	// Width and Height of the terminal in characters; 0 if not known yet.
	Width, Height uint16 `json:",omitempty"`

	User         User
	Capabilities Capabilities
	NoNewPrivs   bool
	// Seccomp is a classic BPF program, struct sock_filter by struct
	// sock_filter in native byte order (seccomp(2)); empty means none.
	Seccomp []byte `json:",omitempty"`
	// SeccompFlags are SECCOMP_FILTER_FLAG_*.
	SeccompFlags uint `json:",omitempty"`
	// AppArmor is the profile of the program; empty leaves the monitor's own.
	AppArmor string `json:",omitempty"`
	// SELinux is its label; empty lets the policy choose.
	SELinux string `json:",omitempty"`

	Rlimits     []Rlimit
	OOMScoreAdj *int // nil leaves the monitor's own
	// Umask of the process; 0 means 0022.
	Umask uint32
}

// User is the credentials of a process.
type User struct {
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary, as given to setgroups(2)
}

// Capabilities are the five sets of capabilities(7), bit n for capability n.
type Capabilities struct {
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// Rlimit is one limit of setrlimit(2).
type Rlimit struct {
	Resource   int // RLIMIT_*
	Soft, Hard uint64
}

// Resources are limits of a cgroup. A zero field means: not asked for, and on
// an update: keep what is.
type Resources struct {
	CPUPeriod       int64 // µs
	CPUQuota        int64 // µs; negative means no limit
	CPUShares       int64
	CpusetCpus      string
	CpusetMems      string
	MemoryLimit     int64 // bytes
	MemorySwapLimit int64 // bytes of memory and swap together
	PidsLimit       int64
	Hugepages       []HugepageLimit
	Unified         map[string]string // cgroup v2 file to value, written last

	AllDevices bool // no device filter
}

// HugepageLimit limits one page size, named as the kernel does: "2MB".
type HugepageLimit struct {
	PageSize string
	Limit    uint64
}

// Exit is how a process ended.
type Exit struct {
	Code      int // 128+n when killed by signal n
	At        time.Time
	OOMKilled bool
	// Unknown is set when nobody saw the exit: the node rebooted, or the
	// kernel is too old to tell a process that is not the parent.
	Unknown bool `json:",omitempty"`
}
