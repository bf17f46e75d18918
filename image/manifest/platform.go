package manifest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"
)

// Platform is what an image's programs are made for.
type Platform = ocispec.Platform

// Host is the platform of this machine, with the best variant it can run.
func Host() Platform {
	return Platform{OS: "linux", Architecture: runtime.GOARCH, Variant: hostVariant()}
}

func hostVariant() string {
	switch runtime.GOARCH {
	case "amd64":
		x := cpu.X86
		switch {
		case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL:
			return "v4"
		case x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA:
			return "v3"
		case x.HasSSE42 && x.HasPOPCNT && x.HasSSSE3:
			return "v2"
		}
		return "v1"
	case "arm64":
		return "v8"
	case "arm":
		return "v7"
	}
	return ""
}

// runs lists what p can run, best first.
func runs(p Platform) []Platform {
	var out []Platform
	switch p.Architecture {
	case "amd64":
		for _, v := range downFrom(p.Variant, "v4", "v3", "v2", "v1") {
			out = append(out, Platform{OS: p.OS, Architecture: "amd64", Variant: v})
		}
		return append(out, Platform{OS: p.OS, Architecture: "386"})
	case "arm64":
		out = append(out, Platform{OS: p.OS, Architecture: "arm64", Variant: "v8"})
		for _, v := range []string{"v8", "v7", "v6", "v5"} {
			out = append(out, Platform{OS: p.OS, Architecture: "arm", Variant: v})
		}
		return out
	case "arm":
		for _, v := range downFrom(p.Variant, "v8", "v7", "v6", "v5") {
			out = append(out, Platform{OS: p.OS, Architecture: "arm", Variant: v})
		}
		return out
	}
	return []Platform{p}
}

func downFrom(variant string, all ...string) []string {
	i := slices.Index(all, variant)
	if i < 0 {
		return all[len(all)-1:]
	}
	return all[i:]
}

// normal fills in the variant that an empty one stands for.
func normal(p Platform) Platform {
	p.OS = strings.ToLower(p.OS)
	p.Architecture = strings.ToLower(p.Architecture)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386":
		p.Architecture = "386"
	}
	if p.Variant == "" {
		switch p.Architecture {
		case "amd64":
			p.Variant = "v1"
		case "arm64":
			p.Variant = "v8"
		case "arm":
			p.Variant = "v7"
		}
	}
	if p.Architecture == "386" {
		p.Variant = ""
	}
	return Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
}

// equal compares platforms; they hold slices, so == is not for them.
func equal(a, b Platform) bool {
	return a.OS == b.OS && a.Architecture == b.Architecture && a.Variant == b.Variant
}

// Choose picks the manifest of an index that suits want best. The first of
// equals wins, as the image specification says.
func Choose(index *ocispec.Index, want Platform) (ocispec.Descriptor, error) {
	for _, p := range runs(normalWant(want)) {
		for _, d := range index.Manifests {
			if d.Platform != nil && known(d.MediaType) && equal(normal(*d.Platform), normal(p)) {
				return d, nil
			}
		}
	}
	// An index need not name platforms. With one image in it there is nothing
	// to choose, and the config tells later whether it suits.
	var bare []ocispec.Descriptor
	var have []string
	for _, d := range index.Manifests {
		switch {
		case d.Platform == nil && known(d.MediaType):
			bare = append(bare, d)
		case d.Platform != nil && d.Platform.OS != "unknown":
			have = append(have, Format(*d.Platform))
		}
	}
	if len(bare) == 1 {
		return bare[0], nil
	}
	if len(have) > 20 {
		have = append(have[:20], "...")
	}
	return ocispec.Descriptor{}, fmt.Errorf("no image for platform %s in the index, which has %q", Format(want), have)
}

// normalWant keeps the variant of want as it is: an empty one means the least.
func normalWant(p Platform) Platform {
	if p.OS == "" {
		p.OS = "linux"
	}
	return normal(p)
}

// Suits checks the platform that a config names. One that names none is taken
// at its word that it runs anywhere.
func Suits(have, want Platform) error {
	if have.Architecture == "" && have.OS == "" {
		return nil
	}
	if have.OS == "" {
		have.OS = "linux"
	}
	for _, p := range runs(normalWant(want)) {
		if equal(normal(have), normal(p)) {
			return nil
		}
	}
	return fmt.Errorf("image is for platform %s, wanted is %s", Format(have), Format(want))
}

// Format writes os/architecture/variant.
func Format(p Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}
