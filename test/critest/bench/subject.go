package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"cri-mini/test/critest/internal/instance"
	"cri-mini/test/critest/internal/place"
	"cri-mini/test/critest/internal/registry"
	"cri-mini/test/critest/internal/testimage"
)

// own is the name of what is measured; the others are there to compare with.
// earlier is another build of it.
const (
	own     = "cri-mini"
	earlier = "cri-mini before"
)

// ours tells whether it is quick, and stamps the start of a container as ours
// does.
func (s *subject) ours() bool { return s.name == own || s.name == earlier }

// daemon is one runtime, whoever made it.
type daemon interface {
	Start() error
	Restart() error
	Kill() error
	Stop() error
	Pid() int
	Endpoint() string
	Registries() string
}

// subject is a daemon in a place of its own, and a client of it.
type subject struct {
	*client
	name   string
	daemon daemon
	place  *place.Place
	dir    string
	count  atomic.Int64 // of pods so far, for their names
}

// subjects are started, and have the image. One that cannot be started ends
// the run: a table that lacks it would look complete.
func (o *options) subjects(work string, images *testimage.Set) (all []*subject, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(all))
			all = nil
		}
	}()
	names := []string{own}
	if o.before != "" {
		names = append(names, earlier)
	}
	if o.peers != "" {
		names = append(names, "containerd + runc", "containerd + crun")
	}
	for i, name := range names {
		dir := filepath.Join(work, fmt.Sprintf("subject%d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return all, err
		}
		p, err := place.New(fmt.Sprintf("subject%d", i), dir)
		if err != nil {
			return all, err
		}
		s := &subject{name: name, place: p, dir: dir}
		all = append(all, s)
		log := func(name string) string { return filepath.Join(o.output, name+".log") }
		switch name {
		case own:
			s.daemon = &instance.Daemon{Program: o.daemon, Work: dir, Log: log("daemon"), Level: "info", CgroupDriver: "cgroupfs", Place: p}
		case earlier:
			s.daemon = &instance.Daemon{Program: o.before, Work: dir, Log: log("daemon-before"), Level: "info", CgroupDriver: "cgroupfs", Place: p}
		default:
			handler := strings.TrimPrefix(name, "containerd + ")
			s.daemon = &instance.Containerd{Programs: o.peers, Handler: handler, Pause: pauseImage, Work: dir, Log: log("containerd-" + handler), Place: p}
		}
		if err := s.begin(images); err != nil {
			return all, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

func (s *subject) begin(images *testimage.Set) error {
	if err := s.daemon.Start(); err != nil {
		return err
	}
	listener, err := s.place.Listen()
	if err != nil {
		return err
	}
	if err := registry.ServeOn(listener, images, s.daemon.Registries()); err != nil {
		return err
	}
	s.client, err = dial(s.daemon.Endpoint(), filepath.Join(s.dir, "logs"))
	if err != nil {
		return err
	}
	return s.pull(image)
}

func closeAll(all []*subject) error {
	var wrong []error
	for _, s := range all {
		if s.client != nil {
			s.close()
			wrong = append(wrong, s.daemon.Stop())
		}
		wrong = append(wrong, s.place.Close())
	}
	return errors.Join(wrong...)
}
