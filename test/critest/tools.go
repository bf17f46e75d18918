//go:build tools

package critest

// Stock crictl is built from this module; the import keeps its needs in go.mod.
import _ "sigs.k8s.io/cri-tools/cmd/crictl"
