package plan

import (
	"fmt"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

const nsField = securityField + "namespace_options."

// namespaces fills in which namespaces a pod has for itself.
func namespaces(s *spec.Sandbox, o *criapi.NamespaceOption) error {
	var err error
	if s.HostNetwork, err = podOrNode("network", o.GetNetwork()); err != nil {
		return err
	}
	if s.HostIPC, err = podOrNode("ipc", o.GetIpc()); err != nil {
		return err
	}
	// The node's network with a name of the pod's own would confuse programs
	// that look up their own address.
	s.HostUTS = s.HostNetwork
	switch o.GetPid() {
	case criapi.NamespaceMode_POD:
		s.SharedPID = true
	case criapi.NamespaceMode_CONTAINER, criapi.NamespaceMode_NODE:
	default:
		return invalid(nsField+"pid", o.GetPid(), "is not possible for a pod")
	}
	if o.GetTargetId() != "" {
		return invalid(nsField+"target_id", o.TargetId, "is not possible for a pod")
	}
	if s.IDs, err = userNamespace(o.GetUsernsOptions()); err != nil {
		return err
	}
	if s.IDs == nil {
		return nil
	}
	for field, mode := range map[string]criapi.NamespaceMode{"network": o.GetNetwork(), "pid": o.GetPid(), "ipc": o.GetIpc()} {
		if mode == criapi.NamespaceMode_NODE {
			return invalid(nsField+field, mode, "is not possible together with a user namespace")
		}
	}
	return nil
}

func podOrNode(field string, m criapi.NamespaceMode) (node bool, err error) {
	switch m {
	case criapi.NamespaceMode_POD:
		return false, nil
	case criapi.NamespaceMode_NODE:
		return true, nil
	}
	return false, invalid(nsField+field, m, "must be POD or NODE")
}

// userNamespace is nil for the node's. A missing option comes from a kubelet
// that knows no user namespaces.
func userNamespace(u *criapi.UserNamespace) (*spec.IDMapping, error) {
	const field = nsField + "userns_options."
	if u == nil {
		return nil, nil
	}
	switch u.Mode {
	case criapi.NamespaceMode_NODE:
		if len(u.Uids)+len(u.Gids) > 0 {
			return nil, invalid(field+"mode", u.Mode, "cannot have mappings")
		}
		return nil, nil
	case criapi.NamespaceMode_POD:
		return idMapping(field, "uids", "gids", u.Uids, u.Gids)
	}
	return nil, invalid(field+"mode", u.Mode, "must be POD or NODE")
}

func idMapping(prefix, uidField, gidField string, uids, gids []*criapi.IDMapping) (*spec.IDMapping, error) {
	u, err := oneMapping(prefix+uidField, uids)
	if err != nil {
		return nil, err
	}
	g, err := oneMapping(prefix+gidField, gids)
	if err != nil {
		return nil, err
	}
	if u != g {
		return nil, invalid(prefix+gidField, mappingText(gids[0]), "must be the same as %s", uidField)
	}
	return &u, nil
}

func oneMapping(field string, list []*criapi.IDMapping) (spec.IDMapping, error) {
	if len(list) != 1 {
		return spec.IDMapping{}, invalid(field, fmt.Sprint(len(list), " mappings"), "must be exactly one")
	}
	m := list[0]
	switch {
	case m.ContainerId != 0:
		return spec.IDMapping{}, invalid(field, mappingText(m), "must map id 0 of the container")
	case m.Length == 0:
		return spec.IDMapping{}, invalid(field, mappingText(m), "has no length")
	case uint64(m.HostId)+uint64(m.Length) > 1<<32-1:
		return spec.IDMapping{}, invalid(field, mappingText(m), "reaches beyond the last id")
	}
	return spec.IDMapping{Host: m.HostId, Length: m.Length}, nil
}

// mappingText writes a mapping as /proc/pid/uid_map does.
func mappingText(m *criapi.IDMapping) string {
	return fmt.Sprintf("%d %d %d", m.ContainerId, m.HostId, m.Length)
}

// inherited checks what a container asks of the namespaces that it has from its
// pod. POD, which is also what is asked by saying nothing, fits every pod.
func inherited(o *criapi.NamespaceOption, s spec.Sandbox) error {
	for _, n := range []struct {
		field string
		asked criapi.NamespaceMode
		host  bool
	}{{"network", o.GetNetwork(), s.HostNetwork}, {"ipc", o.GetIpc(), s.HostIPC}} {
		node, err := podOrNode(n.field, n.asked)
		if err != nil {
			return err
		}
		if node && !n.host {
			return invalid(nsField+n.field, n.asked, "the pod has one of its own")
		}
	}
	if o.GetTargetId() != "" && o.GetPid() != criapi.NamespaceMode_TARGET {
		return invalid(nsField+"target_id", o.TargetId, "needs pid TARGET, not %s", o.GetPid())
	}
	u := o.GetUsernsOptions()
	if u == nil {
		return nil
	}
	ids, err := userNamespace(u)
	switch {
	case err != nil:
		return err
	case ids == nil && s.IDs != nil:
		return invalid(nsField+"userns_options.mode", u.Mode, "the pod has users of its own")
	case ids != nil && (s.IDs == nil || *ids != *s.IDs):
		return invalid(nsField+"userns_options.uids", mappingText(u.Uids[0]), "is not the mapping of the pod")
	}
	return nil
}

// pidMode says whose processes the container sees.
func pidMode(o *criapi.NamespaceOption, sandbox spec.Sandbox) (spec.PIDMode, string, error) {
	switch o.GetPid() {
	case criapi.NamespaceMode_POD:
		if !sandbox.SharedPID {
			return "", "", invalid(nsField+"pid", "POD", "the pod was made without a shared PID namespace")
		}
		return spec.PIDPod, "", nil
	case criapi.NamespaceMode_NODE:
		if sandbox.IDs != nil {
			return "", "", invalid(nsField+"pid", "NODE", "is not possible together with a user namespace")
		}
		return spec.PIDNode, "", nil
	case criapi.NamespaceMode_TARGET:
		if o.TargetId == "" {
			return "", "", invalid(nsField+"target_id", "", "is missing")
		}
		return spec.PIDTarget, o.TargetId, nil
	}
	return spec.PIDContainer, "", nil
}
