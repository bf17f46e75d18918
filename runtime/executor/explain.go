package executor

import (
	"errors"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spawn"
	"cri-mini/runtime/spec"
)

// explain finds out why the mount of a host path was refused. The kernel says
// only that something is invalid; most often it is a folder for a file, or a
// file for a folder.
func (c *container) explain(err error) error {
	step := (*spawn.Error)(nil)
	if !errors.As(err, &step) || step.Errno != unix.EINVAL && step.Errno != unix.ENOTDIR {
		return err
	}
	target, isMount := strings.CutPrefix(step.What, "mount ")
	if !isMount {
		return err
	}
	for i, m := range c.prepared.spec.Mounts {
		source := c.prepared.files["mount"+strconv.Itoa(i)]
		if m.Kind != spec.BindMount || path.Clean(m.Target) != target || source == nil {
			continue
		}
		place, openErr := c.rootfs.Open(target, unix.O_PATH)
		if openErr != nil {
			return err
		}
		defer place.Close()
		there, thereErr := place.Stat()
		ours, oursErr := source.Stat()
		if thereErr != nil || oursErr != nil || there.IsDir() == ours.IsDir() {
			return err
		}
		reason := errors.New("is a file, and " + m.Target + " a folder in the image")
		if ours.IsDir() {
			reason = errors.New("is a folder, and " + m.Target + " a file in the image")
		}
		return &spec.InputError{Part: spec.InputMount, Name: m.Target, Value: m.Source, Err: reason}
	}
	return err
}
