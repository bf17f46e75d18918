package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/internal/undo"
)

// Update changes limits. Either all are set or the old ones stand again.
func (g *Group) Update(res Resources) error {
	if res.Devices != nil || res.AllowAllDevices {
		return fmt.Errorf("cgroup %s: devices are set at creation only", g.Path)
	}
	settings, err := res.settings()
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", g.Path, err)
	}
	g.enableFor(settings)
	if err := g.apply(settings); err != nil {
		return fmt.Errorf("cgroup %s: %w", g.Path, err)
	}
	return nil
}

// enableFor gives the group the controllers that it was made without: nobody
// had asked for a cpuset, and now the CPU manager pins the container.
func (g *Group) enableFor(settings []setting) {
	have := words(g.file("cgroup.controllers"))
	var need []string
	for _, s := range settings {
		if !s.neutral && !slices.Contains(have, s.controller) {
			need = append(need, s.controller)
		}
	}
	if need == nil {
		return
	}
	dir := strings.TrimSuffix(g.dir, g.Path)
	for name := range strings.SplitSeq(g.Path[1:], "/") {
		_ = enable(dir, need)
		dir += "/" + name
	}
}

func (g *Group) apply(settings []setting) error {
	var back undo.Stack
	defer back.Run()
	for _, s := range settings {
		if err := g.set(s, &back); err != nil {
			return err
		}
	}
	back.Keep()
	return nil
}

func (g *Group) set(s setting, back *undo.Stack) error {
	old, err := g.read(s.file)
	value := s.value
	if err == nil && s.merge != nil {
		value, err = s.merge(g.read)
	}
	if err == nil && old == value {
		return nil
	}
	if err == nil {
		err = writeFile(g.file(s.file), value)
	}
	switch {
	case err == nil:
		back.Add(func() error { return g.restore(s.file, old, value) })
		return nil
	case errors.Is(err, unix.ENOENT) && s.neutral && g.exists():
		return nil
	case errors.Is(err, unix.ENOENT) && g.exists() && !slices.Contains(words(g.file("cgroup.controllers")), s.controller):
		// Asked for once more, to learn the kernel's reason.
		why := enable(path.Dir(g.dir), []string{s.controller})
		return &ErrControllerMissing{Controller: s.controller, Field: s.field, Value: s.asked, Cause: why}
	}
	if !g.exists() {
		return err
	}
	return &ErrLimit{s.field, s.asked, err}
}

func (g *Group) file(name string) string { return g.dir + "/" + name }

func (g *Group) read(name string) (string, error) {
	text, err := readFile(g.file(name))
	return strings.TrimSpace(text), err
}

func (g *Group) exists() bool { return unix.Access(g.dir, unix.F_OK) == nil }

// restore writes a file's old content. Most files hold one value. Those with a
// line for each device take one line at a time, and a device that had none is
// set back to no limit.
func (g *Group) restore(file, old, written string) error {
	if file == "io.max" {
		device, _, _ := strings.Cut(written, " ")
		if !strings.Contains("\n"+old, "\n"+device+" ") {
			return writeFile(g.file(file), device+" rbps=max wbps=max riops=max wiops=max")
		}
	}
	for line := range strings.SplitSeq(old, "\n") {
		if line == "" {
			line = "\n" // an empty cpuset; no bytes at all would be no write
		}
		if err := writeFile(g.file(file), line); err != nil {
			return fmt.Errorf("restore %s of cgroup %s: %w", file, g.Path, err)
		}
	}
	return nil
}
