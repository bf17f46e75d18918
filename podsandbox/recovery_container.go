package podsandbox

import (
	"errors"
	"fmt"
	"os"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/atomicfile"
)

// loadContainers reads the containers of a pod. A bad one is put aside and the
// pod lives on.
func (s *Sandbox) loadContainers() error {
	dirs, err := folders(s.dir.path("containers"))
	if os.IsNotExist(err) {
		return nil // killed while the pod's folder was being filled or emptied
	}
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		c, err := s.loadContainer(dir)
		if errors.Is(err, errNewer) {
			return err
		}
		if errors.Is(err, atomicfile.ErrUnwritten) && s.boot != s.pods.opt.BootID {
			if err := s.pods.unwritten(&dir); err != nil {
				return err
			}
			c, err = s.loadContainer(dir)
		}
		if err != nil {
			if err := s.pods.putAside(dir, err); err != nil {
				return err
			}
			continue
		}
		s.containers[c.ID] = c
	}
	return nil
}

func (s *Sandbox) loadContainer(dir folder) (*Container, error) {
	var r containerRecord
	err := atomicfile.ReadJSON(dir.path("container.json"), &r)
	if dir.mark != "" && (err != nil || r.ID != dir.id) {
		// The name of the folder says enough to take the container away.
		remains, err := s.pods.remains(s, dir.id)
		if err != nil {
			return nil, err
		}
		return newContainer(s, dir, containerRecord{ID: dir.id, Spec: remains}, &criapi.ContainerConfig{}), nil
	}
	if err != nil {
		return nil, err
	}
	config := new(criapi.ContainerConfig)
	if err := checkRecord(dir, "container.json", r.Version, r.ID); err != nil {
		return nil, err
	}
	if len(r.Env) > len(r.Spec.Process.Env) {
		return nil, errors.New("container.json: Env is longer than that of the process")
	}
	r.restoreEnv()
	if err := decode(r.Config, config); err != nil {
		return nil, fmt.Errorf("container.json: config: %w", err)
	}
	if config.Metadata == nil {
		return nil, errors.New("container.json: config has no metadata")
	}
	if err := atomicfile.Sweep(dir.path()); err != nil {
		return nil, err
	}
	c := newContainer(s, dir, r, config)
	return c, c.loadFacts()
}

// loadFacts reads the files that were added since the container was created.
func (c *Container) loadFacts() error {
	if _, err := readOptional(c.dir.path("start.json"), &c.started); err != nil {
		return err
	}
	var e end
	ended, err := readOptional(c.dir.path("exit.json"), &e)
	if err != nil {
		return err
	}
	if ended {
		c.ended = &e
		close(c.exited)
	}
	return c.loadResources()
}
