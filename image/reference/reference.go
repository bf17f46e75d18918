// Package reference reads image names as people, kubelets and tools write them.
//
// A Name is a repository in a registry together with a tag or a digest; it is
// always complete, so two spellings of one name are equal. An ID is the digest
// of an image's config, written in full or, by people, as its first digits.
// The package knows nothing of what is stored or of how a registry is reached.
package reference

import (
	_ "crypto/sha256" // go-digest only knows the algorithms that are linked in
	_ "crypto/sha512"
	"errors"
	"fmt"
	"regexp"
	"strings"

	distref "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// ErrInvalid is what every error of Parse is.
var ErrInvalid = errors.New("invalid image name")

// Error is a name that is none.
type Error struct{ Name, Reason string }

func (e *Error) Error() string        { return fmt.Sprintf("%v: %q: %s", ErrInvalid, e.Name, e.Reason) }
func (e *Error) Is(target error) bool { return target == ErrInvalid }

func invalid(name, reason string, args ...any) error {
	return &Error{name, fmt.Sprintf(reason, args...)}
}

// maxLength bounds what is handed to the regular expressions of the library.
const maxLength = 1024

// Name is a complete image name. Exactly one of Tag and Digest is set.
type Name struct {
	Domain string // of the registry, with its port
	Path   string // of the repository in the registry
	Tag    string
	Digest digest.Digest
}

// Parse completes a name with the default registry and the tag "latest". Of a
// name with both a tag and a digest the digest counts: it says exactly what is
// meant, while the tag may have moved since.
func Parse(s string) (Name, error) {
	if len(s) > maxLength {
		return Name{}, invalid(s[:64]+"...", "is %d bytes long, at most %d are allowed", len(s), maxLength)
	}
	if _, ok := FullID(s); ok {
		return Name{}, invalid(s, "is an image ID, not a name in a registry")
	}
	named, err := distref.ParseNormalizedNamed(s)
	if err != nil {
		return Name{}, invalid(s, "%v", err)
	}
	n := Name{Domain: distref.Domain(named), Path: distref.Path(named)}
	if n.Domain == "" {
		// The library takes what has a dot for a host, and for a folder again
		// when it is none, as with an underscore.
		host, _, _ := strings.Cut(s, "/")
		return Name{}, invalid(s, "%q is not the address of a registry", host)
	}
	if digested, ok := named.(distref.Digested); ok {
		n.Digest = digested.Digest()
		if a := n.Digest.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
			return Name{}, invalid(s, "digest algorithm %q is not one of sha256, sha512", a)
		}
		return n, nil
	}
	n.Tag = "latest"
	if tagged, ok := named.(distref.Tagged); ok {
		n.Tag = tagged.Tag()
	}
	return n, nil
}

// Repository is the name without tag and digest.
func (n Name) Repository() string { return n.Domain + "/" + n.Path }

// WithDigest names the content d in the same repository.
func (n Name) WithDigest(d digest.Digest) Name {
	return Name{Domain: n.Domain, Path: n.Path, Digest: d}
}

// Reference is what stands for the content in the registry's interface: the
// digest or the tag.
func (n Name) Reference() string {
	if n.Digest != "" {
		return n.Digest.String()
	}
	return n.Tag
}

func (n Name) String() string {
	if n.Digest != "" {
		return n.Repository() + "@" + n.Digest.String()
	}
	return n.Repository() + ":" + n.Tag
}

var (
	fullID = regexp.MustCompile(`^(?:sha256:)?([0-9a-f]{64})$`)
	someID = regexp.MustCompile(`^(?:sha256:)?([0-9a-f]{1,64})$`)
)

// FullID reads an image ID of 64 digits, with or without "sha256:".
func FullID(s string) (digest.Digest, bool) {
	if m := fullID.FindStringSubmatch(s); m != nil {
		return digest.NewDigestFromEncoded(digest.SHA256, m[1]), true
	}
	return "", false
}

// IDPrefix reads the first digits of an image ID, with or without "sha256:".
// The same text may also be a name, so look for a name first.
func IDPrefix(s string) (string, bool) {
	if m := someID.FindStringSubmatch(s); m != nil {
		return "sha256:" + m[1], true
	}
	return "", false
}

// Domain completes the address of a registry as it stands in credentials, with
// or without scheme and path, to the form that Name.Domain has.
func Domain(address string) (string, error) {
	host := address
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	host, _, _ = strings.Cut(host, "/")
	named, err := distref.ParseNormalizedNamed(host + "/x")
	if err != nil {
		return "", fmt.Errorf("registry address %q: %w", address, err)
	}
	if distref.Path(named) != "x" && distref.Path(named) != "library/x" {
		return host, nil // a bare word: the library takes it for a folder
	}
	return distref.Domain(named), nil
}
