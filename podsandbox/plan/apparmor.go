package plan

//lint:file-ignore SA1019 the deprecated field stands in for the structured one.

import (
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/apparmor"
)

// AppArmor is what a container asks for.
type AppArmor struct {
	Kind  criapi.SecurityProfile_ProfileType
	Name  string // of a local profile
	Field string // that asks
	// Asked is false when the runtime's default is meant because nothing was
	// said.
	Asked bool
}

// AppArmorProfile reads the request. The structured field stands before the
// deprecated one, and a privileged container is not confined whatever it says.
func AppArmorProfile(s *criapi.LinuxContainerSecurityContext) (AppArmor, error) {
	if s.GetPrivileged() {
		return AppArmor{Kind: criapi.SecurityProfile_Unconfined}, nil
	}
	if p := s.GetApparmor(); p != nil {
		if _, known := criapi.SecurityProfile_ProfileType_name[int32(p.ProfileType)]; !known {
			return AppArmor{}, invalid(securityField+"apparmor.profile_type", p.ProfileType, "is unknown")
		}
		a := AppArmor{Kind: p.ProfileType, Field: securityField + "apparmor.profile_type", Asked: true}
		if p.ProfileType == criapi.SecurityProfile_Localhost {
			return a.local(p.LocalhostRef, securityField+"apparmor.localhost_ref")
		}
		return a, nil
	}
	a := AppArmor{Field: securityField + "apparmor_profile", Asked: true}
	switch deprecated := s.GetApparmorProfile(); deprecated {
	case "":
		a.Asked = false
	case "runtime/default":
	case "unconfined":
		a.Kind = criapi.SecurityProfile_Unconfined
	default:
		a.Kind = criapi.SecurityProfile_Localhost
		return a.local(deprecated, a.Field)
	}
	return a, nil
}

func (a AppArmor) local(ref, field string) (AppArmor, error) {
	a.Name, a.Field = strings.TrimPrefix(ref, "localhost/"), field
	if err := apparmor.CheckName(a.Name); err != nil {
		return AppArmor{}, invalid(field, ref, "%v", err)
	}
	return a, nil
}
