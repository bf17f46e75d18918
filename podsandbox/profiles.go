package podsandbox

import (
	"context"
	"errors"
	"fmt"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/hostpath"
	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/apparmor"
	"cri-mini/runtime/seccomp"
)

// prepareProfile loads the default profile before the first container wants it.
func (p *Pods) prepareProfile() {
	if !p.opt.AppArmor.Enabled() {
		return
	}
	if err := p.opt.AppArmor.LoadDefault(p.ctx); errors.Is(err, apparmor.ErrCannotLoad) {
		p.opt.AppArmor.WarnWithout(err)
	} else if err != nil && p.ctx.Err() == nil {
		p.log.Warn("containers with the default AppArmor profile cannot be created", "error", err)
	}
}

// appArmor gives the profile that a container runs under, "" for none. One that
// was asked for is there, or it is an error: a container that is less confined
// than its user believes is worse than none.
//
// Who asks for nothing gets the default profile where the kernel has AppArmor
// and the node can load it. Where it cannot it runs without, as it does
// with the other runtimes: a node is not to stop working because of it.
func (p *Pods) appArmor(ctx context.Context, s *criapi.LinuxContainerSecurityContext) (string, error) {
	asked, err := plan.AppArmorProfile(s)
	if err != nil {
		return "", err
	}
	kernel := p.opt.AppArmor
	switch asked.Kind {
	case criapi.SecurityProfile_Unconfined:
		return "", nil
	case criapi.SecurityProfile_Localhost:
		bad := func(reason string) error {
			return &InvalidError{Field: asked.Field, Value: asked.Name, Reason: reason}
		}
		if !kernel.Enabled() {
			return "", bad("AppArmor is not enabled on this node")
		}
		if err := kernel.Loaded(asked.Name); err != nil {
			return "", bad(err.Error())
		}
		return asked.Name, nil
	}
	// The default of a runtime without AppArmor is none.
	if !kernel.Enabled() {
		return "", nil
	}
	switch err := kernel.LoadDefault(ctx); {
	case err == nil:
		return apparmor.DefaultName, nil
	case !asked.Asked && errors.Is(err, apparmor.ErrCannotLoad):
		kernel.WarnWithout(err)
		return "", nil
	case errors.Is(err, apparmor.ErrCannotLoad):
		return "", &InvalidError{Field: asked.Field, Value: criapi.SecurityProfile_RuntimeDefault.String(), Reason: err.Error()}
	default:
		return "", err
	}
}

// loadProfile reads the local seccomp profile that a container asks for.
func loadProfile(ctx context.Context, s *criapi.LinuxContainerSecurityContext) (*seccomp.Profile, error) {
	file, field, err := plan.SeccompFile(s)
	if err != nil || file == "" {
		return nil, err
	}
	profile, err := hostpath.Ask(ctx, field, file, func() (*seccomp.Profile, error) { return seccomp.Load(file) }, nil)
	if silent(err) {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if err != nil {
		return nil, &InvalidError{Field: field, Value: file, Reason: reason(err)}
	}
	return profile, nil
}
