package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"cri-mini/image/manifest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDepth is how many indexes may lead to each other.
const maxDepth = 4

// Resolved is what a name leads to on one platform.
type Resolved struct {
	Digest         digest.Digest // of what the name itself stands for, often an index
	ManifestDigest digest.Digest
	Manifest       ocispec.Manifest
	Config         []byte
}

// Resolve follows the name to a manifest and fetches its config.
func (r *Repository) Resolve(ctx context.Context, p manifest.Platform) (Resolved, error) {
	top, err := r.top(ctx)
	if err != nil {
		return Resolved{}, fmt.Errorf("pull %s: %w", r.name, err)
	}
	out := Resolved{Digest: top.digest}
	doc := top
	for depth := 1; doc.Index != nil; depth++ {
		if depth > maxDepth {
			return out, fmt.Errorf("pull %s: more than %d indexes lead to each other", r.name, maxDepth)
		}
		desc, err := manifest.Choose(doc.Index, p)
		if err != nil {
			return out, fmt.Errorf("pull %s: %w", r.name, err)
		}
		if doc, err = r.chosen(ctx, desc); err != nil {
			return out, fmt.Errorf("pull %s: %w", r.name, err)
		}
	}
	out.ManifestDigest, out.Manifest = doc.digest, *doc.Manifest
	if out.Config, err = r.Small(ctx, out.Manifest.Config, manifest.MaxConfigSize); err != nil {
		return out, fmt.Errorf("pull %s: config: %w", r.name, err)
	}
	return out, nil
}

// document is a manifest.Document and the digest of its bytes.
type document struct {
	manifest.Document
	digest digest.Digest
	size   int64
}

// top fetches what the name stands for. A tag is looked up only where the
// operator trusts the answer; content is fetched by digest from anywhere.
func (r *Repository) top(ctx context.Context) (document, error) {
	if r.name.Digest != "" {
		return r.byDigest(ctx, r.name.Digest)
	}
	var doc document
	var known digest.Digest
	what := "manifest " + r.name.Tag
	err := r.eachHost(ctx, what, func(ep *endpoint) bool { return ep.resolve }, func(ep *endpoint) (err error) {
		if ep.pull {
			doc, err = r.manifest(ctx, ep, r.name.Tag, "")
		} else {
			known, err = r.head(ctx, ep, r.name.Tag)
		}
		return err
	})
	if err == nil && known != "" {
		return r.byDigest(ctx, known)
	}
	return doc, err
}

// chosen fetches a manifest that an index describes.
func (r *Repository) chosen(ctx context.Context, desc ocispec.Descriptor) (document, error) {
	doc, err := r.byDigest(ctx, desc.Digest)
	if err != nil {
		return doc, err
	}
	if desc.Size != doc.size {
		return doc, fmt.Errorf("manifest %s: the index says it has %d bytes, and it has %d: %w", desc.Digest, desc.Size, doc.size, ErrCorrupt)
	}
	if desc.MediaType != doc.MediaType {
		return doc, fmt.Errorf("manifest %s: the index says it is %q, and it is %q: %w", desc.Digest, desc.MediaType, doc.MediaType, ErrCorrupt)
	}
	return doc, nil
}

func (r *Repository) byDigest(ctx context.Context, d digest.Digest) (document, error) {
	var doc document
	err := r.eachHost(ctx, "manifest "+d.String(), canPull, func(ep *endpoint) (err error) {
		doc, err = r.manifest(ctx, ep, d.String(), d)
		return err
	})
	return doc, err
}

func canPull(ep *endpoint) bool { return ep.pull }

// manifest fetches one document from one host. want may be empty, for a tag.
func (r *Repository) manifest(ctx context.Context, ep *endpoint, ref string, want digest.Digest) (document, error) {
	resp, err := r.request(ctx, ep, http.MethodGet, "manifests/"+ref, map[string]string{"Accept": strings.Join(manifest.Accept, ", ")})
	if err != nil {
		return document{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return document{}, readStatus(resp)
	}
	defer resp.Body.Close()
	if resp.ContentLength > manifest.MaxSize {
		return document{}, fmt.Errorf("manifest of %d bytes, at most %d are allowed: %w", resp.ContentLength, manifest.MaxSize, ErrCorrupt)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, manifest.MaxSize+1))
	if err != nil {
		return document{}, &networkError{fmt.Errorf("manifest: %w", err)}
	}
	doc := document{digest: want, size: int64(len(data))}
	if want == "" {
		doc.digest = digest.FromBytes(data)
		// The registry may name the content by another algorithm. Its word is
		// only taken when the content bears it out.
		if said := digest.Digest(resp.Header.Get("Docker-Content-Digest")); said != "" {
			if err := said.Validate(); err != nil {
				return doc, fmt.Errorf("Docker-Content-Digest %q: %v: %w", harmless(said.String()), err, ErrCorrupt)
			}
			doc.digest = said
		}
	}
	if got := doc.digest.Algorithm().FromBytes(data); got != doc.digest {
		return doc, fmt.Errorf("manifest has digest %s, wanted %s: %w", got, doc.digest, ErrCorrupt)
	}
	if doc.Document, err = manifest.Parse(data, resp.Header.Get("Content-Type")); err != nil {
		return doc, fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	return doc, nil
}

// head asks a host only for the digest behind a tag.
func (r *Repository) head(ctx context.Context, ep *endpoint, tag string) (digest.Digest, error) {
	resp, err := r.request(ctx, ep, http.MethodHead, "manifests/"+tag, map[string]string{"Accept": strings.Join(manifest.Accept, ", ")})
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", readStatus(resp)
	}
	resp.Body.Close()
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("Docker-Content-Digest %q: %v: %w", harmless(d.String()), err, ErrCorrupt)
	}
	return d, nil
}

// Small fetches a blob into memory.
func (r *Repository) Small(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("blob %s of %d bytes, at most %d are allowed: %w", desc.Digest, desc.Size, limit, ErrCorrupt)
	}
	var buf bytes.Buffer
	err := r.Fetch(ctx, desc, func(blob io.Reader) error {
		buf.Reset() // a second host starts again
		_, err := buf.ReadFrom(blob)
		return err
	})
	return buf.Bytes(), err
}
