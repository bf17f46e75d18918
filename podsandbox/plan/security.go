package plan

//lint:file-ignore SA1019 the deprecated field stands in for the structured one.

import (
	"regexp"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/capability"
	"cri-mini/runtime/spec"
)

const securityField = "linux.security_context."

// capabilities are those of the first process. Without root, execve leaves the
// bounding and the ambient ones: that is the kernel's doing, not ours.
func capabilities(r Request) (spec.Capabilities, error) {
	s := r.Config.GetLinux().GetSecurityContext()
	limit := r.Facts.OwnCapabilities
	if r.Sandbox.IDs != nil {
		limit = r.Facts.AllCapabilities
	}
	asked := s.GetCapabilities()
	sets, err := capability.ResolveWithin(limit, asked.GetAddCapabilities(), asked.GetDropCapabilities(),
		asked.GetAddAmbientCapabilities(), s.GetPrivileged())
	if err != nil {
		return spec.Capabilities{}, &InvalidError{Reason: securityField + "capabilities: " + err.Error()}
	}
	return spec.Capabilities(sets), nil
}

// checkAppArmor refuses a profile that would not be applied: a container that
// is less confined than its user believes is worse than none.
func (f Facts) checkAppArmor(s *criapi.LinuxContainerSecurityContext) error {
	name, field := "", securityField+"apparmor"
	switch p := s.GetApparmor(); {
	case s.GetPrivileged():
		return nil
	case p == nil:
		field = securityField + "apparmor_profile"
		name = strings.TrimPrefix(s.GetApparmorProfile(), "localhost/")
		if name == "unconfined" || name == "runtime/default" {
			name = ""
		}
	case p.ProfileType == criapi.SecurityProfile_Localhost:
		field += ".localhost_ref"
		name = strings.TrimPrefix(p.LocalhostRef, "localhost/")
		if name == "" {
			return invalid(field, "", "is missing")
		}
	}
	switch {
	case name == "":
		return nil
	case f.AppArmor:
		return invalid(field, name, "AppArmor profiles cannot be applied")
	}
	return invalid(field, name, "AppArmor is not enabled on this node")
}

var selinuxLevel = regexp.MustCompile(`^s\d+(-s\d+)?(:c\d+([.,]c\d+)*)?$`)

// checkSELinux accepts labels on a node that has no use for them.
func (f Facts) checkSELinux(o *criapi.SELinuxOption) error {
	const field = securityField + "selinux_options."
	if o.GetLevel() != "" && !selinuxLevel.MatchString(o.Level) {
		return invalid(field+"level", o.Level, "is not a level like s0:c1,c2")
	}
	for name, value := range map[string]string{"user": o.GetUser(), "role": o.GetRole(), "type": o.GetType()} {
		if strings.ContainsAny(value, ": \n\x00") {
			return invalid(field+name, value, "is not part of a label")
		}
	}
	if f.SELinux && (o.GetLevel() != "" || o.GetType() != "") {
		return invalid(field+"type", o.GetType()+" "+o.GetLevel(), "SELinux labels cannot be applied")
	}
	return nil
}
