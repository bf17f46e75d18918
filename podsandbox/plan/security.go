package plan

import (
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
