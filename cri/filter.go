package cri

import (
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

// Filters: what is given must all match. An id may be cut short, as people
// type it.

func sandboxMatches(f *criapi.PodSandboxFilter, s podsandbox.SandboxStatus) bool {
	return f == nil ||
		strings.HasPrefix(s.ID, f.Id) &&
			(f.State == nil || f.State.State == sandboxState(s)) &&
			labelsMatch(f.LabelSelector, s.Config.GetLabels())
}

func containerMatches(f *criapi.ContainerFilter, c podsandbox.ContainerStatus) bool {
	return f == nil ||
		strings.HasPrefix(c.ID, f.Id) &&
			strings.HasPrefix(c.Sandbox, f.PodSandboxId) &&
			(f.State == nil || f.State.State == c.State) &&
			labelsMatch(f.LabelSelector, c.Config.GetLabels())
}

func statsMatch(f *criapi.ContainerStatsFilter, c podsandbox.ContainerStatus) bool {
	return f == nil ||
		strings.HasPrefix(c.ID, f.Id) &&
			strings.HasPrefix(c.Sandbox, f.PodSandboxId) &&
			labelsMatch(f.LabelSelector, c.Config.GetLabels())
}

func podStatsMatch(f *criapi.PodSandboxStatsFilter, s podsandbox.SandboxStatus) bool {
	return f == nil ||
		strings.HasPrefix(s.ID, f.Id) &&
			labelsMatch(f.LabelSelector, s.Config.GetLabels())
}

func labelsMatch(wanted, labels map[string]string) bool {
	for key, value := range wanted {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}
