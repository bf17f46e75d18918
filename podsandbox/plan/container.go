package plan

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/passwd"
	"cri-mini/internal/signalname"
	"cri-mini/podsandbox/cdi"
	"cri-mini/runtime/seccomp"
	"cri-mini/runtime/spec"
)

// Request is one container and all that bears on it.
type Request struct {
	ID      string
	Sandbox spec.Sandbox
	Pod     *criapi.PodSandboxConfig
	Config  *criapi.ContainerConfig

	Image         Image
	Rootfs        spec.Rootfs
	Passwd, Group []byte // of the root file system; nil when it has none

	// Etc is the pod's folder with hosts, hostname and resolv.conf.
	Etc string
	// ImageVolumes are the layers of the mounts that name an image, by their
	// place in Config.Mounts.
	ImageVolumes map[int][]spec.Layer
	// Devices are Config.Devices with folders replaced by what lies in them.
	Devices []spec.Device
	// CDI is what the devices of Config.CDIDevices need.
	CDI cdi.Edits
	// HostDevices are all device nodes of the node; for a privileged
	// container.
	HostDevices []spec.Device
	// Profile is the local seccomp profile; see SeccompProfile.
	Profile *seccomp.Profile
	// AppArmor is the profile that answers AppArmorProfile, "" for none.
	AppArmor string
	// SELinux is the label of the first program, that of the files is in
	// Rootfs; see SELinuxLabels.
	SELinux string

	Facts Facts
}

// Image is what the config of an image says about running it.
type Image struct {
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	StopSignal string
}

// Plan is a container ready for the executor, and what a status tells of it.
type Plan struct {
	Spec       spec.Container
	StopSignal syscall.Signal
	User       passwd.User
}

// Container plans one container.
func Container(r Request) (Plan, error) {
	if err := checkContainer(r); err != nil {
		return Plan{}, err
	}
	security := r.Config.GetLinux().GetSecurityContext()
	c := spec.Container{
		ID:             r.ID,
		Sandbox:        r.Sandbox.ID,
		Rootfs:         r.Rootfs,
		ReadonlyRootfs: security.GetReadonlyRootfs(),
		Privileged:     security.GetPrivileged(),
		Stdin:          r.Config.Stdin,
		StdinOnce:      r.Config.StdinOnce,
	}
	user, err := resolveUser(r)
	if err != nil {
		return Plan{}, err
	}
	for _, g := range r.CDI.Groups {
		if !slices.Contains(user.Groups, g) {
			user.Groups = append(user.Groups, g)
		}
	}
	signal, err := stopSignal(r.Config.StopSignal, r.Image.StopSignal)
	if err != nil {
		return Plan{}, err
	}
	for _, step := range []func() error{
		func() (err error) {
			if c.LogPath, err = LogPath(r.Pod, r.Config); c.LogPath != "" {
				c.LogRoot = path.Clean(r.Pod.LogDirectory)
			}
			return
		},
		func() (err error) {
			c.Cgroup, err = r.Facts.cgroup(r.Pod.GetLinux().GetCgroupParent(), r.ID)
			return
		},
		func() (err error) { c.PID, c.TargetContainer, err = pidMode(pidOptions(r), r.Sandbox); return },
		func() (err error) { c.Mounts, err = mounts(r); return },
		func() (err error) { c.Devices, err = devices(r, user); return },
		func() (err error) {
			c.Resources, err = Resources(ResourcesField, r.Config.GetLinux().GetResources())
			return
		},
		func() (err error) { c.Process, err = process(r, user); return },
	} {
		if err := step(); err != nil {
			return Plan{}, err
		}
	}
	c.Resources.AllDevices = c.Privileged
	switch {
	case c.Privileged:
	case security == nil:
		c.MaskedPaths, c.ReadonlyPaths = r.Facts.Hidden, r.Facts.Readonly
	default: // an empty list too is an answer: procMount Unmasked
		c.MaskedPaths, c.ReadonlyPaths = security.GetMaskedPaths(), security.GetReadonlyPaths()
	}
	return Plan{Spec: c, StopSignal: signal, User: user}, nil
}

// Remains is what follows from the id of a container alone: enough to remove
// what a crash left of it.
func Remains(id string, rootfs spec.Rootfs, pod *criapi.PodSandboxConfig, f Facts) (spec.Container, error) {
	group, err := f.cgroup(pod.GetLinux().GetCgroupParent(), id)
	return spec.Container{ID: id, Rootfs: rootfs, Cgroup: group}, err
}

func checkContainer(r Request) error {
	cfg := r.Config
	if cfg.GetMetadata().GetName() == "" {
		return invalid("config.metadata.name", "", "is missing")
	}
	if cfg.Windows != nil {
		return NoText("config.windows", "is not for a Linux node")
	}
	security := cfg.GetLinux().GetSecurityContext()
	if security.GetPrivileged() && !r.Pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return invalid(securityField+"privileged", true, "the pod is not privileged")
	}
	if err := inherited(security.GetNamespaceOptions(), r.Sandbox); err != nil {
		return err
	}
	if err := checkPaths(securityField+"masked_paths", security.GetMaskedPaths()); err != nil {
		return err
	}
	if err := checkPaths(securityField+"readonly_paths", security.GetReadonlyPaths()); err != nil {
		return err
	}
	return checkSELinux(security.GetSelinuxOptions())
}

func checkPaths(field string, paths []string) error {
	for i, p := range paths {
		if !absolute(p) {
			return invalid(item(field, i), p, "must be an absolute path")
		}
	}
	return nil
}

// LogPath is the absolute path of the container's log, or "" without one.
func LogPath(pod *criapi.PodSandboxConfig, cfg *criapi.ContainerConfig) (string, error) {
	if pod.GetLogDirectory() == "" || cfg.GetLogPath() == "" {
		return "", nil
	}
	if path.IsAbs(cfg.LogPath) || !confined(cfg.LogPath) {
		return "", invalid("config.log_path", cfg.LogPath, "must be a path below the pod's log directory")
	}
	return path.Join(pod.LogDirectory, cfg.LogPath), nil
}

// confined says that a relative path cannot leave the folder it starts in.
func confined(p string) bool {
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return false
		}
	}
	return !strings.Contains(p, "\x00") && path.Clean(p) != "."
}

func stopSignal(asked criapi.Signal, image string) (syscall.Signal, error) {
	if asked != criapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		n, err := signalname.FromCRI(asked.String())
		if err != nil {
			return 0, invalid("config.stop_signal", asked, "%v", err)
		}
		return n, nil
	}
	if image == "" {
		return syscall.SIGTERM, nil
	}
	n, err := signalname.Parse(image)
	if err != nil {
		return 0, invalid("image config StopSignal", image, "%v", err)
	}
	return n, nil
}

// pidOptions are the container's own, or the pod's when it has none.
func pidOptions(r Request) *criapi.NamespaceOption {
	if o := r.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o != nil {
		return o
	}
	return r.Pod.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

// at names a field of one element of a list: "mounts[2].host_path".
func at(list string, index int, field string) string {
	return item(list, index) + "." + field
}

// item names one element of a list.
func item(list string, index int) string { return list + "[" + strconv.Itoa(index) + "]" }
