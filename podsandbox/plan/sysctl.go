package plan

import (
	"regexp"
	"strings"

	"cri-mini/runtime/spec"
)

// ipcSysctls are those of the kernel's that each IPC namespace has for itself.
// Everything else below kernel/ is the node's.
var ipcSysctls = map[string]bool{
	"kernel/msgmax":          true,
	"kernel/msgmnb":          true,
	"kernel/msgmni":          true,
	"kernel/sem":             true,
	"kernel/shmall":          true,
	"kernel/shmmax":          true,
	"kernel/shmmni":          true,
	"kernel/shm_rmid_forced": true,
}

// A name is a path below /proc/sys: nothing in it may lead elsewhere.
var sysctlName = regexp.MustCompile(`^[a-zA-Z0-9_-]+([./][a-zA-Z0-9_-]+)+$`)

// sysctls checks that each is namespaced and that the pod has the namespace.
func sysctls(asked map[string]string, s spec.Sandbox) (map[string]string, error) {
	if len(asked) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(asked))
	for asWritten, value := range asked {
		field := "config.linux.sysctls[" + asWritten + "]"
		if !sysctlName.MatchString(asWritten) {
			return nil, invalid(field, value, "is not the name of a sysctl")
		}
		if strings.ContainsAny(value, "\n\x00") {
			return nil, invalid(field, value, "must be one line")
		}
		name := SysctlPath(asWritten)
		switch {
		case ipcSysctls[name], strings.HasPrefix(name, "fs/mqueue/"):
			if s.HostIPC {
				return nil, invalid(field, value, "would change the node: the pod has no IPC namespace of its own")
			}
		case strings.HasPrefix(name, "net/"):
			if s.HostNetwork {
				return nil, invalid(field, value, "would change the node: the pod has no network of its own")
			}
		default:
			return nil, invalid(field, value, "is not namespaced")
		}
		if _, twice := out[name]; twice {
			return nil, invalid(field, value, "is given twice")
		}
		out[name] = value
	}
	return out, nil
}

// SysctlPath is the path below /proc/sys. Of dot and slash the one that comes
// first separates the parts, and the other belongs to them: a network device
// may be called eth0.1.
func SysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); name[i] == '/' {
		return name
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(name)
}
