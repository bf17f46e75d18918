// Package manifest reads what describes an image: a Document is a manifest or
// an index of manifests for several platforms, in the words of OCI or of
// Docker; Choose picks the one for a Platform.
//
// The bytes come from strangers. The package does not fetch anything, and
// whether bytes match a digest is for the one who fetched them.
package manifest

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's names for what OCI has names of its own for.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// Bounds on documents, far above any real one.
const (
	MaxSize       = 4 << 20
	MaxConfigSize = 8 << 20
	MaxLayers     = 500 // the kernel's limit on lower layers of an overlay
)

// Accept lists the media types of Documents.
var Accept = []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerIndex, dockerManifest}

// Document is an index or a manifest: exactly one of them is set.
type Document struct {
	MediaType string
	Index     *ocispec.Index
	Manifest  *ocispec.Manifest
}

// Parse reads a document. contentType is what the one who handed it over says
// it is, empty if nothing was said. A document that is one thing by its
// content type and another by its content is refused: two programs could see
// two different images in it (CVE-2021-41190).
func Parse(data []byte, contentType string) (Document, error) {
	if len(data) > MaxSize {
		return Document{}, fmt.Errorf("manifest of %d bytes, at most %d are allowed", len(data), MaxSize)
	}
	fields, err := readFields(data)
	if err != nil {
		return Document{}, err
	}
	if fields.has("manifests") && (fields.has("layers") || fields.has("config") || fields.has("fsLayers")) {
		return Document{}, fmt.Errorf("manifest is ambiguous: it has manifests and also layers or config")
	}
	mediaType, err := decideType(fields, contentType)
	if err != nil {
		return Document{}, err
	}
	d := Document{MediaType: mediaType}
	if isIndex(mediaType) {
		if !fields.has("manifests") {
			return d, fmt.Errorf("manifest says it is %q and has no manifests", mediaType)
		}
		d.Index = &ocispec.Index{}
		err = json.Unmarshal(data, d.Index)
	} else {
		if fields.has("manifests") || !fields.has("config") {
			return d, fmt.Errorf("manifest says it is %q and has no config", mediaType)
		}
		d.Manifest = &ocispec.Manifest{}
		err = json.Unmarshal(data, d.Manifest)
	}
	if err != nil {
		return d, fmt.Errorf("manifest: %w", err)
	}
	return d, d.check()
}

func decideType(fields fields, contentType string) (string, error) {
	var inside string
	if field := fields[fold("mediaType")]; field != nil {
		if err := json.Unmarshal(field, &inside); err != nil {
			return "", fmt.Errorf("manifest: mediaType: %w", err)
		}
	}
	outside, _, err := mime.ParseMediaType(contentType)
	if err != nil || !known(outside) {
		outside = "" // such as text/plain of a simple file server
	}
	switch {
	case inside != "" && !known(inside):
		return "", fmt.Errorf("manifest type %q is not one of %s", inside, strings.Join(Accept, ", "))
	case inside != "" && outside != "" && inside != outside:
		return "", fmt.Errorf("manifest was sent as %q and says it is %q", outside, inside)
	case inside != "":
		return inside, nil
	case outside == dockerManifest || outside == dockerIndex:
		return "", fmt.Errorf("manifest was sent as %q and has no mediaType", outside)
	case outside != "":
		return outside, nil
	case fields.has("fsLayers"):
		return "", fmt.Errorf("manifest is of Docker schema 1, which carries no checkable config")
	case fields.has("manifests"):
		return ocispec.MediaTypeImageIndex, nil
	case fields.has("config"):
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("document sent as %q is not an image manifest", contentType)
}

func known(mediaType string) bool {
	return isIndex(mediaType) || mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

func (d Document) check() error {
	if d.Index != nil {
		for i, m := range d.Index.Manifests {
			if err := checkDescriptor(m); err != nil {
				return fmt.Errorf("index: manifest %d: %w", i, err)
			}
		}
		return nil
	}
	m := d.Manifest
	if m.SchemaVersion != 2 {
		return fmt.Errorf("manifest: schemaVersion %d is not 2", m.SchemaVersion)
	}
	if err := checkDescriptor(m.Config); err != nil {
		return fmt.Errorf("manifest: config: %w", err)
	}
	if t := m.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return fmt.Errorf("not a container image: its config is %q", t)
	}
	if m.Config.Size > MaxConfigSize {
		return fmt.Errorf("manifest: config of %d bytes, at most %d are allowed", m.Config.Size, MaxConfigSize)
	}
	if len(m.Layers) > MaxLayers {
		return fmt.Errorf("manifest: %d layers, at most %d are allowed", len(m.Layers), MaxLayers)
	}
	for i, l := range m.Layers {
		if err := checkDescriptor(l); err != nil {
			return fmt.Errorf("manifest: layer %d: %w", i, err)
		}
		if !isLayer(l.MediaType) {
			return fmt.Errorf("manifest: layer %d: type %q is not a file system layer", i, l.MediaType)
		}
	}
	return nil
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if a := d.Digest.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("digest %q: algorithm is not one of sha256, sha512", d.Digest)
	}
	if d.Size < 0 {
		return fmt.Errorf("size %d of %s is negative", d.Size, d.Digest)
	}
	return nil
}

// isLayer knows the names of tar archives. How one is compressed is seen from
// its first bytes, for the names are often wrong about it.
func isLayer(mediaType string) bool {
	base, compression, _ := strings.Cut(mediaType, "+")
	switch base {
	case ocispec.MediaTypeImageLayer, "application/vnd.oci.image.layer.nondistributable.v1.tar":
		return compression == "" || compression == "gzip" || compression == "zstd"
	case "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return compression == ""
	}
	return false
}
