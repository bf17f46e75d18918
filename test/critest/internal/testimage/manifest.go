package testimage

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
)

// Media types of the objects in a Set.
const (
	IndexType    = "application/vnd.oci.image.index.v1+json"
	ManifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// Config is what a container of the image runs.
type Config struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int       `json:"size"`
	Platform  *platform `json:"platform,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type imageConfig struct {
	platform
	Config Config `json:"config"`
	RootFS rootFS `json:"rootfs"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// add puts config, manifest and index of an image into the set and returns the
// digest of the index.
func (s *Set) add(config Config, layers ...*Layer) (string, error) {
	here := platform{Architecture: runtime.GOARCH, OS: "linux"}
	image := imageConfig{platform: here, Config: config, RootFS: rootFS{Type: "layers"}}
	m := manifest{SchemaVersion: 2, MediaType: ManifestType}
	for _, layer := range layers {
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, layer.DiffID)
		m.Layers = append(m.Layers, s.addBlob(layerType, layer.Blob))
	}
	var err error
	if m.Config, err = s.addJSON(configType, image); err != nil {
		return "", err
	}
	own, err := s.addJSON(ManifestType, m)
	if err != nil {
		return "", err
	}
	own.Platform = &here
	// The first entry is for a machine that nobody has, and its manifest does
	// not exist: a runtime that takes it has not looked at the platform.
	foreign := descriptor{MediaType: ManifestType, Digest: digestOf([]byte("absent")), Size: 500,
		Platform: &platform{Architecture: "pdp11", OS: "linux"}}
	top, err := s.addJSON(IndexType, index{SchemaVersion: 2, MediaType: IndexType, Manifests: []descriptor{foreign, own}})
	return top.Digest, err
}

func (s *Set) addJSON(mediaType string, value any) (descriptor, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, fmt.Errorf("%s: %w", mediaType, err)
	}
	return s.addBlob(mediaType, body), nil
}

func (s *Set) addBlob(mediaType string, body []byte) descriptor {
	digest := digestOf(body)
	s.Blobs[digest] = Blob{MediaType: mediaType, Body: body}
	return descriptor{MediaType: mediaType, Digest: digest, Size: len(body)}
}

func digestOf(body []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(body)) }
