package plan

import (
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/selinux"
)

func TestSELinuxLabelsFollowPolicyRequestAndPod(t *testing.T) {
	label := func(text string) selinux.Label {
		l, err := selinux.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	policy := &selinux.Policy{
		Process: label("system_u:system_r:container_t:s0"), File: label("system_u:object_r:container_file_t:s0"),
		Privileged: "system_u:system_r:spc_t:s0",
	}
	without := *policy
	without.Privileged = ""
	const pod = "s0:c7,c8"
	for name, c := range map[string]struct {
		policy        *selinux.Policy
		asked         *criapi.SELinuxOption
		privileged    bool
		process, file string
	}{
		"nothing":    {policy, nil, false, "system_u:system_r:container_t:s0:c7,c8", "system_u:object_r:container_file_t:s0:c7,c8"},
		"only level": {policy, &criapi.SELinuxOption{Level: "s0"}, false, "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"},
		"only type":  {policy, &criapi.SELinuxOption{Type: "container_init_t"}, false, "system_u:system_r:container_init_t:s0:c7,c8", "system_u:object_r:container_file_t:s0:c7,c8"},
		"all": {policy, &criapi.SELinuxOption{User: "user_u", Role: "user_r", Type: "svirt_lxc_net_t", Level: "s0:c4,c5"}, false,
			"user_u:user_r:svirt_lxc_net_t:s0:c4,c5", "user_u:object_r:container_file_t:s0:c4,c5"},
		"privileged":               {policy, nil, true, "system_u:system_r:spc_t:s0", "system_u:object_r:container_file_t:s0:c7,c8"},
		"privileged with options":  {policy, &criapi.SELinuxOption{Type: "x_t", Level: "s0:c4,c5"}, true, "system_u:system_r:spc_t:s0", "system_u:object_r:container_file_t:s0:c4,c5"},
		"privileged without spc_t": {&without, nil, true, "", "system_u:object_r:container_file_t:s0:c7,c8"},
	} {
		got := SELinuxLabels(c.policy, c.asked, pod, c.privileged)
		if got.Process != c.process || got.File != c.file {
			t.Errorf("%s: %+v, want %s and %s", name, got, c.process, c.file)
		}
	}
}

// Without a label nothing is relabelled, whatever the request says.
func TestVolumesAreRelabelledOnlyWhereThereAreLabels(t *testing.T) {
	for label, want := range map[string]bool{"": false, "u:r:t:s0": true} {
		r := request()
		r.Rootfs.Label, r.SELinux = label, label
		r.Config.Mounts = []*criapi.Mount{{ContainerPath: "/data", HostPath: "/srv", SelinuxRelabel: true}, {ContainerPath: "/other", HostPath: "/other"}}
		p, err := Container(r)
		if err != nil {
			t.Fatal(err)
		}
		if p.Spec.Process.SELinux != label || p.Spec.Rootfs.Label != label {
			t.Errorf("label %q became %q and %q", label, p.Spec.Process.SELinux, p.Spec.Rootfs.Label)
		}
		for _, m := range p.Spec.Mounts {
			// Those below /etc are ours, and nobody else's.
			if wants := want && m.Target != "/other"; m.Relabel != wants {
				t.Errorf("label %q: %s is relabelled: %t, want %t", label, m.Target, m.Relabel, wants)
			}
		}
	}
}
