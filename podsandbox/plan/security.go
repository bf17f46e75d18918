package plan

import (
	"errors"

	"cri-mini/runtime/capability"
	"cri-mini/runtime/spec"
)

const securityField = "config.linux.security_context."

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
	if wrong := (*capability.Error)(nil); errors.As(err, &wrong) {
		return spec.Capabilities{}, invalid(securityField+"capabilities."+wrong.Field, wrong.Name, "%s", wrong.Reason)
	}
	if err != nil {
		return spec.Capabilities{}, err
	}
	return spec.Capabilities(sets), nil
}
