package testregistry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "crypto/sha512" // content is known by both kinds of digest
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// How a layer is compressed.
const (
	Gzip = "gzip" // also for the zero value
	Zstd = "zstd"
	None = "none"
)

// Image is what Push makes manifests and blobs from.
type Image struct {
	Layers      []Layer
	Config      ocispec.ImageConfig
	Platform    ocispec.Platform // zero: linux on this machine
	Docker      bool             // Docker's media types instead of OCI's
	Index       bool             // put an index above the manifest
	Also        []Image          // for other platforms, in the same index
	Annotations map[string]string
}

// Layer is files, or an archive made elsewhere.
type Layer struct {
	Files       []File
	Tar         []byte // instead of Files
	Compression string

	// What is wrong with it, for tests.
	DiffID    digest.Digest // in the config, instead of the right one
	MediaType string        // in the manifest, instead of the right one
	URLs      []string      // in the manifest
	Blob      []byte        // instead of the compressed archive
}

// File is one entry of a layer. Type is one of tar's, zero for a file.
type File struct {
	Name         string
	Type         byte
	Data         string
	Link         string
	Mode         int64 // zero: 0644, 0755 for folders
	UID, GID     int
	Xattrs       map[string]string
	Major, Minor int64
}

// Files makes a layer of plain files from their contents by name. A name that
// ends in "/" is a folder.
func Files(content map[string]string) Layer {
	var l Layer
	for _, name := range slices.Sorted(maps.Keys(content)) {
		l.Files = append(l.Files, File{Name: name, Data: content[name]})
	}
	return l
}

// Program is a file that may be executed.
func Program(name string, data []byte) File {
	return File{Name: name, Data: string(data), Mode: 0o755}
}

// Pushed is what came of an image.
type Pushed struct {
	ID       string        // digest of the config, for this machine's platform
	Digest   digest.Digest // of what the tag leads to
	Manifest digest.Digest
	Layers   []digest.Digest // of the blobs
	DiffIDs  []digest.Digest
}

// Push stores an image under name:tag. It panics on images that cannot be
// encoded, which only a mistake in the test can be.
func (r *Registry) Push(name, tag string, img Image) Pushed {
	p := r.pushManifest(img)
	desc := p.descriptor
	if img.Index || len(img.Also) > 0 {
		index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: indexType(img.Docker)}
		index.Manifests = append(index.Manifests, desc)
		for _, other := range img.Also {
			index.Manifests = append(index.Manifests, r.pushManifest(other).descriptor)
		}
		desc = r.putDocument(index.MediaType, encode(index))
	}
	p.Digest = desc.Digest
	r.Tag(name, tag, desc.Digest)
	return p.Pushed
}

// Tag lets name:tag lead to a manifest or an index that is there.
func (r *Registry) Tag(name, tag string, d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tags[name+":"+tag] = d
}

// PutManifest stores any bytes as a manifest and lets name:tag lead to them.
func (r *Registry) PutManifest(name, tag, mediaType string, data []byte) digest.Digest {
	d := r.putDocument(mediaType, data).Digest
	r.Tag(name, tag, d)
	return d
}

// PutBlob stores a blob.
func (r *Registry) PutBlob(data []byte) digest.Digest {
	d := digest.FromBytes(data)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[d] = data
	r.blobs[digest.SHA512.FromBytes(data)] = data
	return d
}

func (r *Registry) putDocument(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifests[d] = document{mediaType, data}
	r.manifests[digest.SHA512.FromBytes(data)] = r.manifests[d]
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

type pushedManifest struct {
	Pushed
	descriptor ocispec.Descriptor
}

func (r *Registry) pushManifest(img Image) pushedManifest {
	if img.Platform.OS == "" {
		img.Platform.OS = "linux"
	}
	if img.Platform.Architecture == "" {
		img.Platform.Architecture = runtime.GOARCH
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType(img.Docker), Annotations: img.Annotations}
	config := ocispec.Image{Platform: img.Platform, Config: img.Config, RootFS: ocispec.RootFS{Type: "layers"}}
	var p pushedManifest
	for _, l := range img.Layers {
		archive := l.Archive()
		diffID := digest.FromBytes(archive)
		if l.DiffID != "" {
			diffID = l.DiffID
		}
		blob := l.Blob
		if blob == nil {
			blob = compress(archive, l.Compression)
		}
		d := r.PutBlob(blob)
		mediaType := l.MediaType
		if mediaType == "" {
			mediaType = layerType(img.Docker, l.Compression)
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(blob)), URLs: l.URLs})
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		p.Layers = append(p.Layers, d)
		p.DiffIDs = append(p.DiffIDs, diffID)
	}
	data := encode(config)
	m.Config = ocispec.Descriptor{MediaType: configType(img.Docker), Digest: r.PutBlob(data), Size: int64(len(data))}
	p.descriptor = r.putDocument(m.MediaType, encode(m))
	p.descriptor.Platform = &img.Platform
	p.ID = m.Config.Digest.String()
	p.Manifest = p.descriptor.Digest
	return p
}

// Archive is the layer as an uncompressed tar archive.
func (l Layer) Archive() []byte {
	if l.Tar != nil {
		return l.Tar
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, f := range l.Files {
		h := &tar.Header{Name: f.Name, Typeflag: f.Type, Linkname: f.Link, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Devmajor: f.Major, Devminor: f.Minor}
		switch {
		case h.Typeflag == 0 && strings.HasSuffix(f.Name, "/"):
			h.Typeflag = tar.TypeDir
		case h.Typeflag == 0:
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(f.Data))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		for name, value := range f.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+name] = value
		}
		must(t.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			_, err := t.Write([]byte(f.Data))
			must(err)
		}
	}
	must(t.Close())
	return b.Bytes()
}

func compress(data []byte, how string) []byte {
	var b bytes.Buffer
	switch how {
	case "", Gzip:
		z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		must(err)
		_, err = z.Write(data)
		must(err)
		must(z.Close())
	case Zstd:
		z, err := zstd.NewWriter(&b)
		must(err)
		_, err = z.Write(data)
		must(err)
		must(z.Close())
	case None:
		return data
	default:
		panic(fmt.Sprintf("testregistry: compression %q is not known", how))
	}
	return b.Bytes()
}

func manifestType(docker bool) string {
	if docker {
		return "application/vnd.docker.distribution.manifest.v2+json"
	}
	return ocispec.MediaTypeImageManifest
}

func indexType(docker bool) string {
	if docker {
		return "application/vnd.docker.distribution.manifest.list.v2+json"
	}
	return ocispec.MediaTypeImageIndex
}

func configType(docker bool) string {
	if docker {
		return "application/vnd.docker.container.image.v1+json"
	}
	return ocispec.MediaTypeImageConfig
}

func layerType(docker bool, compression string) string {
	switch {
	case docker && compression == None:
		return "application/vnd.docker.image.rootfs.diff.tar"
	case docker:
		return "application/vnd.docker.image.rootfs.diff.tar.gzip"
	case compression == Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case compression == None:
		return ocispec.MediaTypeImageLayer
	}
	return ocispec.MediaTypeImageLayerGzip
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	must(err)
	return data
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("testregistry: %v", err))
	}
}
