package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cri-mini/image/manifest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is what is known of one image. Its slices and maps are shared and must
// not be changed.
type Image struct {
	ID          string   // digest of the config
	Tags        []string // sorted
	Digests     []string // sorted, as repository@digest
	Size        uint64   // of its layers on disk, and of its config
	Config      Config
	Pinned      bool // not to be removed to make room
	Annotations map[string]string
	Created     time.Time // zero if it does not say
	Layers      []string  // diff ids, bottom first; none for a linked directory
}

// Config is what an image says about how to run it: wishes of a stranger, to
// be used only inside a container.
type Config struct {
	User         string
	Env          []string
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	StopSignal   string
	Volumes      []string // sorted
	ExposedPorts []string // sorted
	Labels       map[string]string
}

// parsed is a config taken apart.
type parsed struct {
	config   Config
	created  time.Time
	platform manifest.Platform
	diffIDs  []digest.Digest
}

// parseConfig reads an image's config and refuses what no kernel could run.
func parseConfig(data []byte) (parsed, error) {
	var img ocispec.Image
	if err := json.Unmarshal(data, &img); err != nil {
		return parsed{}, fmt.Errorf("image config is not JSON: %w", err)
	}
	if img.RootFS.Type != "" && img.RootFS.Type != "layers" {
		return parsed{}, fmt.Errorf("image config: rootfs type %q is not \"layers\"", img.RootFS.Type)
	}
	for i, d := range img.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return parsed{}, fmt.Errorf("image config: diff id %d, %q, is not a sha256 digest", i, d)
		}
	}
	c := img.Config
	p := parsed{
		config: Config{
			User:         c.User,
			Env:          c.Env,
			Entrypoint:   c.Entrypoint,
			Cmd:          c.Cmd,
			WorkingDir:   c.WorkingDir,
			StopSignal:   c.StopSignal,
			Volumes:      slices.Sorted(maps.Keys(c.Volumes)),
			ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)),
			Labels:       c.Labels,
		},
		platform: img.Platform,
		diffIDs:  img.RootFS.DiffIDs,
	}
	if img.Created != nil {
		p.created = *img.Created
	}
	return p, p.config.check()
}

// encodeConfig writes the config of an image made here. It holds no time, so
// that the same files and settings give the same image.
func encodeConfig(c Config, p manifest.Platform, diffIDs []digest.Digest, from string) ([]byte, error) {
	img := ocispec.Image{
		Platform: manifest.Platform{OS: p.OS, Architecture: p.Architecture},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
		Config: ocispec.ImageConfig{
			User:         c.User,
			Env:          c.Env,
			Entrypoint:   c.Entrypoint,
			Cmd:          c.Cmd,
			WorkingDir:   c.WorkingDir,
			StopSignal:   c.StopSignal,
			Volumes:      set(c.Volumes),
			ExposedPorts: set(c.ExposedPorts),
			Labels:       c.Labels,
		},
	}
	if from != "" {
		img.History = []ocispec.History{{CreatedBy: from}}
	}
	return json.Marshal(img)
}

func set(list []string) map[string]struct{} {
	if len(list) == 0 {
		return nil
	}
	m := map[string]struct{}{}
	for _, s := range list {
		m[s] = struct{}{}
	}
	return m
}

func (c Config) check() error {
	for _, f := range []struct {
		name   string
		values []string
	}{
		{"User", []string{c.User}}, {"WorkingDir", []string{c.WorkingDir}}, {"StopSignal", []string{c.StopSignal}},
		{"Env", c.Env}, {"Entrypoint", c.Entrypoint}, {"Cmd", c.Cmd}, {"Volumes", c.Volumes},
	} {
		for _, v := range f.values {
			if strings.ContainsRune(v, 0) {
				return fmt.Errorf("image config: %s %q has a zero byte", f.name, v)
			}
		}
	}
	user, group, _ := strings.Cut(c.User, ":")
	for _, id := range []string{user, group} {
		if numeric(id) {
			if n, err := strconv.ParseInt(id, 10, 64); err != nil || n > math.MaxInt32 || n < 0 {
				return fmt.Errorf("image config: User %q: %s is not between 0 and %d", c.User, id, math.MaxInt32)
			}
		}
	}
	return nil
}

// UserUIDOrName takes the user out of User: a number, or a name that only the
// image's passwd file can explain. Both are empty if User is.
func (c Config) UserUIDOrName() (uid *int64, name string) {
	user, _, _ := strings.Cut(c.User, ":")
	if n, err := strconv.ParseInt(user, 10, 64); err == nil && numeric(user) {
		return &n, ""
	}
	return nil, user
}

// numeric tells whether s is meant as a number, be it a bad one.
func numeric(s string) bool {
	digits := strings.TrimLeft(s, "+-")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}
