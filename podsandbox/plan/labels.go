package plan

import (
	"regexp"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/selinux"
)

const selinuxField = securityField + "selinux_options"

var selinuxLevel = regexp.MustCompile(`^s\d+(:c\d+([.,]c\d+)*)?(-s\d+(:c\d+([.,]c\d+)*)?)?$`)

// checkSELinux refuses what can be no part of a label, also on a node that has
// no use for labels.
func checkSELinux(o *criapi.SELinuxOption) error {
	if o.GetLevel() != "" && !selinuxLevel.MatchString(o.Level) {
		return invalid(selinuxField+".level", o.Level, "is not a level like s0:c1,c2")
	}
	for name, value := range map[string]string{"user": o.GetUser(), "role": o.GetRole(), "type": o.GetType()} {
		if strings.ContainsAny(value, ": \n\x00") {
			return invalid(selinuxField+"."+name, value, "is not part of a label")
		}
	}
	return nil
}

// Labels are what a container's programs and its files are marked with.
type Labels struct {
	Process string // empty leaves it to the policy
	File    string
}

// SELinuxLabels makes the labels out of the policy's, what is asked for, and
// the level of the pod where none is asked for.
func SELinuxLabels(policy *selinux.Policy, o *criapi.SELinuxOption, podLevel string, privileged bool) Labels {
	level := o.GetLevel()
	if level == "" {
		level = podLevel
	}
	labels := Labels{
		Process: policy.Process.With(selinux.Label{User: o.GetUser(), Role: o.GetRole(), Type: o.GetType(), Level: level}).String(),
		// Role and type of files are not those of programs.
		File: policy.File.With(selinux.Label{User: o.GetUser(), Level: level}).String(),
	}
	if privileged {
		labels.Process = policy.Privileged
	}
	return labels
}
