package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cri-mini/internal/atomicfile"

	"github.com/opencontainers/go-digest"
)

const (
	recordVersion = 1
	recordSuffix  = ".json"
	badSuffix     = ".bad"
)

// record is what is kept of an image on disk, in a file named by its ID. The
// ID is the digest of Config, so a damaged record gives itself away.
type record struct {
	Version     int
	Config      []byte
	Tags        []string          `json:",omitempty"`
	Digests     []string          `json:",omitempty"`
	Annotations map[string]string `json:",omitempty"`
	Pinned      bool              `json:",omitempty"`

	// Directory is a linked root directory, used in place of layers.
	Directory string `json:",omitempty"`
	// Removed: the image is gone for everyone but the containers that hold it.
	Removed bool `json:",omitempty"`
	// Passing: the image goes when nobody holds it any more.
	Passing bool `json:",omitempty"`
	// Written settles who has a tag when a crash left it with two images.
	Written time.Time
}

// entry is a record in memory.
type entry struct {
	id     digest.Digest
	rec    record
	parsed parsed
	image  Image

	owners   map[string]bool // who holds it
	removing bool            // its record is being taken off the disk
}

// needsHolder tells whether the image is there for its holders only.
func (e *entry) needsHolder() bool { return e.rec.Removed || e.rec.Passing }

func (s *Store) recordFile(id digest.Digest) string {
	return filepath.Join(s.recordDir(), id.Encoded()+recordSuffix)
}

// save writes a record so that it survives a power cut.
func (s *Store) save(id digest.Digest, rec record) error {
	data, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Durable(s.recordFile(id), append(data, '\n'), 0o600)
}

// loadRecords reads all records. A bad one is put aside and told of: one bad
// image must not cost the node the others.
func (s *Store) loadRecords() error {
	files, err := os.ReadDir(s.recordDir())
	if err != nil {
		return err
	}
	for _, f := range files {
		switch {
		case strings.HasSuffix(f.Name(), badSuffix):
			s.keepUnknown = true
		case strings.HasSuffix(f.Name(), recordSuffix):
			e, err := s.loadRecord(f.Name())
			if err != nil {
				if err := s.quarantine(f.Name(), err); err != nil {
					return err
				}
				continue
			}
			s.enter(e)
		}
	}
	return nil
}

func (s *Store) loadRecord(name string) (*entry, error) {
	data, err := os.ReadFile(filepath.Join(s.recordDir(), name))
	if err != nil {
		return nil, err
	}
	var rec record
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&rec); err != nil {
		return nil, err
	}
	if rec.Version != recordVersion {
		return nil, fmt.Errorf("version %d is not %d", rec.Version, recordVersion)
	}
	id := digest.FromBytes(rec.Config)
	if want := strings.TrimSuffix(name, recordSuffix); id.Encoded() != want {
		return nil, fmt.Errorf("config has digest %s", id)
	}
	e, err := newEntry(id, rec)
	if err != nil {
		return nil, err
	}
	s.hideIncomplete(e)
	return e, nil
}

// hideIncomplete treats an image that lost a layer, in a power cut soon after
// it was pulled, as removed: whoever wants it pulls it again, and whoever holds
// it keeps what there is.
func (s *Store) hideIncomplete(e *entry) {
	for _, d := range e.layers() {
		if _, ok := s.layers[d]; !ok && !e.rec.Removed {
			s.log.Warn("image lost a layer and is not shown until it is pulled again", "image", e.id, "tags", e.rec.Tags, "layer", d)
			e.rec.Tags, e.rec.Digests, e.rec.Removed = nil, nil, true
		}
	}
}

// quarantine puts a record aside, where a person can look at it.
func (s *Store) quarantine(name string, reason error) error {
	s.keepUnknown = true
	bad := strings.TrimSuffix(name, recordSuffix) + badSuffix
	s.log.Error("image record is damaged and put aside", "record", name, "as", bad, "err", reason)
	if err := os.Rename(filepath.Join(s.recordDir(), name), filepath.Join(s.recordDir(), bad)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func newEntry(id digest.Digest, rec record) (*entry, error) {
	p, err := parseConfig(rec.Config)
	if err != nil {
		return nil, err
	}
	return &entry{id: id, rec: rec, parsed: p, owners: map[string]bool{}}, nil
}

// layers lists every layer once.
func (e *entry) layers() []digest.Digest {
	if e.rec.Directory != "" {
		return nil
	}
	return unique(e.parsed.diffIDs)
}

func unique(list []digest.Digest) []digest.Digest {
	out := slices.Clone(list)
	slices.Sort(out)
	return slices.Compact(out)
}

// enter makes an entry known: its names, and its use of layers. s.mu is held,
// or nobody else knows s yet.
func (s *Store) enter(e *entry) {
	s.images[e.id] = e
	for _, d := range e.layers() {
		s.uses[d]++
	}
	s.claim(e)
}

// claim gives an entry the names in its record, except tags that a younger
// record has: a crash came before the older one was told. s.mu is held.
func (s *Store) claim(e *entry) {
	for _, tag := range e.rec.Tags {
		other := s.names[tag]
		if other != nil && other != e {
			if other.rec.Written.After(e.rec.Written) {
				e.rec.Tags = without(e.rec.Tags, tag)
				continue
			}
			other.rec.Tags = without(other.rec.Tags, tag)
			s.refresh(other)
		}
		s.names[tag] = e
	}
	for _, d := range e.rec.Digests {
		s.names[d] = e
	}
	s.refresh(e)
}

// refresh works out again what is shown of an entry. s.mu is held.
func (s *Store) refresh(e *entry) {
	s.list = nil
	size := uint64(len(e.rec.Config))
	var layers []string
	for _, d := range e.layers() {
		size += s.layers[d].Size
	}
	if e.rec.Directory == "" {
		for _, d := range e.parsed.diffIDs {
			layers = append(layers, d.String())
		}
	}
	e.image = Image{
		ID:          e.id.String(),
		Tags:        e.rec.Tags,
		Digests:     e.rec.Digests,
		Size:        size,
		Config:      e.parsed.config,
		Pinned:      e.rec.Pinned,
		Annotations: e.rec.Annotations,
		Created:     e.parsed.created,
		Layers:      layers,
	}
}

// with and without make new slices: those in an Image are never changed.
func with(list []string, s string) []string {
	if i, found := slices.BinarySearch(list, s); !found {
		return slices.Insert(slices.Clone(list), i, s)
	}
	return list
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s })
}
