package plan

//lint:file-ignore SA1019 the deprecated field stands in for the structured one.

import (
	"encoding/binary"
	"path"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/capability"
	"cri-mini/runtime/seccomp"
	"cri-mini/runtime/spec"
)

// SeccompFile is the local profile a container asks for and the field that
// asks, "" when it asks for none. The structured field stands before the
// deprecated one.
func SeccompFile(s *criapi.LinuxContainerSecurityContext) (file, field string, err error) {
	kind, file, field, err := seccompKind(s)
	if err != nil || kind != criapi.SecurityProfile_Localhost {
		return "", "", err
	}
	if !path.IsAbs(file) {
		return "", "", invalid(field, file, "must be an absolute path")
	}
	return file, field, nil
}

// checkPodProfiles refuses profiles that cannot be. Possible ones have nothing
// to confine: a pod has no process of its own, and the small init of a shared
// PID namespace has no right at all.
func checkPodProfiles(s *criapi.LinuxSandboxSecurityContext) error {
	profiles := &criapi.LinuxContainerSecurityContext{
		Privileged: s.GetPrivileged(), Apparmor: s.GetApparmor(), Seccomp: s.GetSeccomp(), SeccompProfilePath: s.GetSeccompProfilePath(),
	}
	if _, err := AppArmorProfile(profiles); err != nil {
		return err
	}
	_, _, err := SeccompFile(profiles)
	return err
}

func seccompKind(s *criapi.LinuxContainerSecurityContext) (kind criapi.SecurityProfile_ProfileType, file, field string, err error) {
	if s.GetPrivileged() {
		return criapi.SecurityProfile_Unconfined, "", "", nil
	}
	if p := s.GetSeccomp(); p != nil {
		field = securityField + "seccomp.localhost_ref"
		if _, known := criapi.SecurityProfile_ProfileType_name[int32(p.ProfileType)]; !known {
			return 0, "", "", invalid(securityField+"seccomp.profile_type", p.ProfileType, "is unknown")
		}
		return p.ProfileType, strings.TrimPrefix(p.LocalhostRef, "localhost/"), field, nil
	}
	field = securityField + "seccomp_profile_path"
	switch deprecated := s.GetSeccompProfilePath(); deprecated {
	case "", "unconfined":
		return criapi.SecurityProfile_Unconfined, "", field, nil
	case "runtime/default", "docker/default":
		return criapi.SecurityProfile_RuntimeDefault, "", field, nil
	default:
		local, found := strings.CutPrefix(deprecated, "localhost/")
		if !found {
			return 0, "", "", invalid(field, deprecated, "must be unconfined, runtime/default or localhost/<path>")
		}
		return criapi.SecurityProfile_Localhost, local, field, nil
	}
}

// seccompFilter compiles the filter of a container; nil means unconfined.
func seccompFilter(r Request, caps spec.Capabilities) (filter []byte, flags uint, err error) {
	s := r.Config.GetLinux().GetSecurityContext()
	kind, file, field, err := seccompKind(s)
	if err != nil || kind == criapi.SecurityProfile_Unconfined {
		return nil, 0, err
	}
	// What a capability allows, a profile may allow too.
	names := capability.Names(caps.Bounding)
	var profile *seccomp.Profile
	if kind == criapi.SecurityProfile_RuntimeDefault {
		profile = seccomp.Default(names)
	} else {
		profile = r.Profile.For(names)
	}
	compiled, err := seccomp.Compile(profile)
	if err != nil {
		return nil, 0, invalid(field, file, "%v", err)
	}
	program := make([]byte, 0, 8*len(compiled))
	for _, f := range compiled {
		program = binary.NativeEndian.AppendUint16(program, f.Code)
		program = append(program, f.Jt, f.Jf)
		program = binary.NativeEndian.AppendUint32(program, f.K)
	}
	return program, profile.Flags(), nil
}
