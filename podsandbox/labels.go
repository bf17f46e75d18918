package podsandbox

import (
	"fmt"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/selinux"
)

// label gives the pod its SELinux label, whose level keeps its files and
// programs apart from those of others. The pod has the level until unlabel.
func (s *Sandbox) label() error {
	policy, err := s.pods.opt.SELinux.Policy()
	if err != nil || policy == nil {
		return err
	}
	security := s.config.GetLinux().GetSecurityContext()
	asked := security.GetSelinuxOptions()
	level := asked.GetLevel()
	if level != "" {
		s.pods.levels.Keep(level)
	} else if level, err = s.pods.levels.Take(policy.File.Level); err != nil {
		return err
	}
	labels := plan.SELinuxLabels(policy, asked, level, security.GetPrivileged())
	if err := s.pods.validLabels(labels, asked); err != nil {
		s.pods.levels.Release(level)
		return err
	}
	s.spec.Label = labels.File
	return nil
}

// level is what the pod holds of s.pods.levels; "" without SELinux.
func (s *Sandbox) level() string {
	label, err := selinux.Parse(s.spec.Label)
	if err != nil {
		return ""
	}
	return label.Level
}

// relabel is label for a pod that was found: it has its level already.
func (s *Sandbox) relabel() {
	if level := s.level(); level != "" {
		s.pods.levels.Keep(level)
	}
}

func (s *Sandbox) unlabel() {
	if level := s.level(); level != "" {
		s.pods.levels.Release(level)
	}
}

// labels are those of a container. What it does not ask for, the pod does.
func (s *Sandbox) labels(c *criapi.LinuxContainerSecurityContext) (plan.Labels, error) {
	policy, err := s.pods.opt.SELinux.Policy()
	if err != nil || policy == nil {
		return plan.Labels{}, err
	}
	asked := c.GetSelinuxOptions()
	if asked == nil {
		asked = s.config.GetLinux().GetSecurityContext().GetSelinuxOptions()
	}
	level := s.level()
	if level == "" { // a pod from before SELinux was switched on
		return plan.Labels{}, fmt.Errorf("pod %s has no SELinux label: %w", s.ID, ErrFailedPrecondition)
	}
	labels := plan.SELinuxLabels(policy, asked, level, c.GetPrivileged())
	return labels, s.pods.validLabels(labels, asked)
}

func (p *Pods) validLabels(labels plan.Labels, asked *criapi.SELinuxOption) error {
	for _, label := range []string{labels.Process, labels.File} {
		if label == "" {
			continue
		}
		if err := p.opt.SELinux.Valid(label); err != nil {
			return &InvalidError{Field: "config.linux.security_context.selinux_options", Value: asked.String(), Reason: err.Error()}
		}
	}
	return nil
}
