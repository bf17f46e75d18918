package power

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cri-mini/image"
)

// node is what is started on a disk after a cut: an image store in this process,
// which costs milliseconds, or a daemon.
type node interface {
	list() (map[string][]string, error) // tags of each image, by ID
	pull(name string) error
	// verify tells of layers that are not whole, and repairs them if asked to.
	verify(repair bool) (damaged []string, err error)
	stop()
}

// store is an image store that was opened as a daemon opens it.
type store struct {
	t *testing.T
	*image.Store
}

func openStore(t *testing.T, root, certs, form string) (*store, error) {
	s, err := image.Open(root, image.Options{RegistryConfigDir: certs, LayerForm: form, Logger: slog.Default()})
	if err != nil {
		return nil, err
	}
	if err := s.Collect(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &store{t, s}, nil
}

func (s *store) list() (map[string][]string, error) {
	images := map[string][]string{}
	for _, i := range s.List() {
		images[i.ID] = i.Tags
		if _, err := s.Layers(i.ID); err != nil {
			return nil, err
		}
	}
	return images, nil
}

func (s *store) pull(name string) error {
	_, err := s.Pull(context.Background(), name, image.PullOptions{})
	return err
}

func (s *store) verify(repair bool) (damaged []string, err error) {
	err = s.Verify(context.Background(), nil, image.VerifyOptions{Repair: repair}, func(v image.Verified) {
		if !v.Whole() || v.Repaired {
			damaged = append(damaged, string(v.Layer))
		}
	})
	return damaged, err
}

func (s *store) stop() {
	if err := s.Close(); err != nil {
		s.t.Error(err)
	}
}

func (d *daemon) verify(repair bool) (damaged []string, err error) {
	args := []string{"image", "verify"}
	if repair {
		args = append(args, "--repair")
	}
	out, err := d.run(args...)
	for line := range strings.Lines(out) {
		if rest, found := strings.CutPrefix(line, "layer "); found {
			damaged = append(damaged, strings.Fields(rest)[0])
		}
	}
	if len(damaged) > 0 && !repair {
		err = nil // the exit code says that something is damaged
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return damaged, err
}

// counts are what a run of cuts is worth.
type counts struct {
	cuts, daemons    int
	images, durable  int // found; and of those, promised
	told, lost       int // images that a client had been told of; of those, not found and pulled again
	layers, wrong    int // compared, and wrong
	spoiled          int // damaged by the test, found by verify and repaired
	fetched, records int // layers that were fetched again; records of pods put aside
}

func (c counts) String() string {
	return fmt.Sprintf("%d cuts (%d with a whole daemon): %d images found, among them %d of %d promised; %d of %d that a client was told of had to be pulled again; "+
		"%d layers compared, %d with wrong bytes; %d layers spoiled by the test found and repaired; %d blobs fetched again; %d records of pods put aside",
		c.cuts, c.daemons, c.images, c.durable, c.durable, c.lost, c.told, c.layers, c.wrong, c.spoiled, c.fetched, c.records)
}

// survey looks at a node after a cut.
type survey struct {
	*recording
	t        *testing.T
	images   *catalogue
	folder   string // of the images on the disk
	node     node
	position int
	counts   *counts
	right    map[string]uint64 // layers that were compared, with the inode of their folder
}

func (s *survey) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("cut at %d: %s", s.position, fmt.Sprintf(format, args...))
}

// all is what has to hold after every cut.
func (s *survey) all(verify bool) {
	found, err := s.node.list()
	if err != nil {
		s.errorf("list: %v", err)
		return
	}
	s.counts.images += len(found)
	s.compare(found)
	s.promised(found)
	s.damage(verify)
	for _, k := range s.images.current() {
		before := s.images.registry.Count("blobs/")
		if err := s.node.pull(k.name); err != nil {
			s.errorf("pull again: %v", err)
		}
		s.counts.fetched += s.images.registry.Count("blobs/") - before
	}
	s.images.registry.Forget()
	if found, err = s.node.list(); err != nil {
		s.errorf("list after all was pulled: %v", err)
		return
	}
	for _, k := range s.images.current() {
		if tags, ok := found[k.ID]; !ok || !slices.Contains(tags, k.name) {
			s.errorf("%s was pulled again and is not there: %q", k.name, tags)
		}
	}
	s.compare(found)
	s.leftovers()
}

// compare looks at each file of all images that are shown.
func (s *survey) compare(found map[string][]string) {
	s.t.Helper()
	for id := range found {
		k, known := s.images.byID(id)
		if !known {
			s.errorf("an image is shown that never was: %s", id)
			continue
		}
		for _, d := range k.DiffIDs {
			s.compareLayer(k.name, d.String())
		}
	}
}

func (s *survey) compareLayer(name, id string) {
	s.t.Helper()
	inode := inodeOf(layerFolder(s.folder, id))
	if inode != 0 && s.right[id] == inode {
		return
	}
	if within([]span{s.spoiled[id]}, s.position) && s.right[id] == 0 {
		return // damage looks at it first
	}
	lines, err := served(s.folder, id)
	want := s.images.layers[id]
	s.counts.layers++
	if err == nil && slices.Equal(lines, want) {
		s.right[id] = inode
		return
	}
	s.counts.wrong++
	s.errorf("layer %s of %s is served and wrong: %v%s", id, name, err, differences(lines, want))
}

// promised looks for what the power may not take.
func (s *survey) promised(found map[string][]string) {
	s.t.Helper()
	for _, k := range s.images.images {
		_, there := found[k.ID]
		if s.hasDurable(k.ID, s.position) {
			s.counts.durable++
			if !there {
				s.errorf("%s was durable and is lost", k.name)
			}
		}
		if s.hasTold(k.ID, s.position) {
			s.counts.told++
			if !there {
				s.counts.lost++
			}
		}
	}
}

// damage lets the node look itself, for nothing or for what the test spoiled.
func (s *survey) damage(verify bool) {
	s.t.Helper()
	var spoiled []string
	for id, when := range s.spoiled {
		if when.has(s.position) {
			spoiled = append(spoiled, id)
		}
	}
	if !verify && len(spoiled) == 0 {
		return
	}
	var wrong []string // as the test sees it
	for _, id := range spoiled {
		if !exists(layerFolder(s.folder, id)) {
			continue
		}
		if lines, err := served(s.folder, id); err != nil || !slices.Equal(lines, s.images.layers[id]) {
			wrong = append(wrong, id)
		}
	}
	damaged, err := s.node.verify(len(spoiled) > 0)
	if err != nil {
		s.errorf("verify: %v", err)
	}
	for _, id := range damaged {
		if !slices.Contains(spoiled, id) {
			s.errorf("verify says that layer %s is damaged, which nobody did", id)
		}
	}
	for _, id := range wrong {
		if !slices.Contains(damaged, id) {
			s.errorf("layer %s was spoiled and verify does not find it", id)
		}
		s.counts.spoiled++
	}
	for _, id := range spoiled {
		s.right[id] = 1 // no inode: what is served from now on has to be right
	}
}

// leftovers are what nobody would ever remove.
func (s *survey) leftovers() {
	s.t.Helper()
	if st, ok := s.node.(*store); ok {
		st.stop() // returns when what is removed has been deleted
	}
	for _, dir := range []string{"layers/unfinished", "layers/removed", "layers/replaced", "tmp"} {
		left, err := os.ReadDir(filepath.Join(s.folder, dir))
		if _, live := s.node.(*daemon); live || err == nil && len(left) == 0 {
			continue
		}
		s.errorf("left in %s: %v, %v", dir, left, err)
	}
	folders, err := os.ReadDir(filepath.Join(s.folder, "layers/layers"))
	if err != nil {
		s.errorf("%v", err)
	}
	for _, f := range folders {
		if _, known := s.images.layers[strings.Replace(f.Name(), "-", ":", 1)]; !known {
			s.errorf("left among the layers: %s", f.Name())
		}
	}
	if bad, err := filepath.Glob(filepath.Join(s.folder, "records/*.bad")); err != nil || len(bad) > 0 {
		s.errorf("records of images that cannot be read: %q, %v", bad, err)
	}
}
