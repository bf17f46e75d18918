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
