package podsandbox

import (
	"errors"
	"fmt"
	"path"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// asInput names the field of the request that an executor found wrong. Any
// other error stays as it is.
func asInput(err error, config *criapi.ContainerConfig) error {
	var wrong *spec.InputError
	if !errors.As(err, &wrong) {
		return err
	}
	field := wrong.Name
	switch wrong.Part {
	case spec.InputMount:
		field = "mount " + wrong.Name // one of ours, unless it is found
		for i, m := range config.GetMounts() {
			if path.Clean(m.ContainerPath) == path.Clean(wrong.Name) {
				field = fmt.Sprintf("config.mounts[%d].host_path", i)
			}
		}
	case spec.InputResource:
		field = "config.linux.resources." + wrong.Name
	case spec.InputSysctl:
		field = "linux.sysctls[" + strings.ReplaceAll(wrong.Name, "/", ".") + "]"
	}
	return &InvalidError{Field: field, Value: wrong.Value, Reason: wrong.Err.Error()}
}
