package manifest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	sum        = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	ociConfig  = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + sum + `","size":2}`
	gzipLayer  = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + sum + `","size":3}`
	oneLayer   = `"layers":[` + gzipLayer + `]`
	ociIndex   = "application/vnd.oci.image.index.v1+json"
	ociType    = "application/vnd.oci.image.manifest.v1+json"
	noMediaDoc = `{"schemaVersion":2,` + ociConfig + `,` + oneLayer + `}`
)

func TestParseKnowsWhatADocumentIs(t *testing.T) {
	for _, test := range []struct{ data, contentType, want string }{
		{noMediaDoc, ociType, ociType},
		{noMediaDoc, "", ociType},
		{noMediaDoc, "application/json; charset=utf-8", ociType},
		{`{"mediaType":"` + ociType + `",` + noMediaDoc[1:], "text/plain", ociType},
		{`{"mediaType":"` + ociType + `",` + noMediaDoc[1:], ociType + "; charset=utf-8", ociType},
		{`{"schemaVersion":2,"manifests":[]}`, ociIndex, ociIndex},
		{`{"schemaVersion":2,"manifests":[]}`, "", ociIndex},
		{`{"schemaVersion":2,"mediaType":"` + dockerIndex + `","manifests":[]}`, dockerIndex, dockerIndex},
		{`{"schemaVersion":2,"mediaType":"` + dockerManifest + `","config":{"mediaType":"` + dockerConfig + `","digest":"` + sum + `"},"layers":[]}`, dockerManifest, dockerManifest},
	} {
		d, err := Parse([]byte(test.data), test.contentType)
		if err != nil || d.MediaType != test.want || (d.Index == nil) == (d.Manifest == nil) {
			t.Errorf("Parse(%s, %q) = %+v, %v; want %s", test.data, test.contentType, d, err, test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(noMediaDoc, old, new, 1) }
	for _, test := range []struct{ data, contentType, want string }{
		{"", "", "not JSON"},
		{"[]", "", "not JSON"},
		{noMediaDoc + "x", "", "not JSON"},
		{`{"manifests":[],` + noMediaDoc[1:], ociType, "ambiguous"},
		{`{"Manifests":[],` + noMediaDoc[1:], ociType, "ambiguous"},
		{`{"mediaType":"` + ociIndex + `",` + noMediaDoc[1:], ociType, "was sent as"},
		{`{"mediaType":"` + ociType + `",` + noMediaDoc[1:], ociIndex, "was sent as"},
		{`{"mediaType":"application/x",` + noMediaDoc[1:], ociType, `"application/x"`},
		{`{"mediaType":7,` + noMediaDoc[1:], ociType, "mediaType"},
		{noMediaDoc, ociIndex, "no manifests"},
		{noMediaDoc, dockerManifest, "no mediaType"},
		{`{"schemaVersion":2,"manifests":[]}`, ociType, "no config"},
		{`{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"},
		{`{"hello":1}`, "text/html", "text/html"},
		{with(`"schemaVersion":2`, `"schemaVersion":1`), "", "schemaVersion 1"},
		{with(sum, "sha256:00"), "", "sha256:00"},
		{with(sum, "md5:00112233445566778899aabbccddeeff"), "", "md5:"},
		{with(`"size":3`, `"size":-3`), "", "negative"},
		{with(`"size":2`, `"size":99999999`), "", "at most"},
		{with("layer.v1.tar+gzip", "layer.v1.tar+gzip+encrypted"), "", "encrypted"},
		{with("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.in-toto+json"), "", "in-toto"},
		{with("vnd.oci.image.config.v1", "vnd.cncf.helm.config.v1"), "", "helm"},
		{with(gzipLayer, strings.Repeat(gzipLayer+",", MaxLayers)+gzipLayer), "", "at most"},
		{strings.Repeat(" ", MaxSize+1), "", "at most"},
		{`{"MEDIATYPE":"` + ociIndex + `",` + noMediaDoc[1:], "", "has no manifests"},
		{`{"mediaType":"` + ociType + `","MediaType":"` + ociIndex + `",` + noMediaDoc[1:], "", `"MediaType" twice`},
		{`{"mediaType":"` + ociType + `","mediaType":"` + ociIndex + `",` + noMediaDoc[1:], "", `"mediaType" twice`},
		{`{"manifest\u017f":[],` + noMediaDoc[1:], "", "ambiguous"},
		{with(`"digest":`, `"Digest":"`+sum+`","digest":`), "", `"digest" twice`},
	} {
		if _, err := Parse([]byte(test.data), test.contentType); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Parse(%.200s, %q) = %v, want an error with %q", test.data, test.contentType, err, test.want)
		}
	}
}

func TestChoose(t *testing.T) {
	index := func(platforms ...string) *ocispec.Index {
		ix := &ocispec.Index{}
		for i, p := range platforms {
			d := ocispec.Descriptor{MediaType: ociType, Size: int64(i)}
			if p != "-" {
				part := append(strings.Split(p, "/"), "", "")
				d.Platform = &ocispec.Platform{OS: part[0], Architecture: part[1], Variant: part[2]}
			}
			ix.Manifests = append(ix.Manifests, d)
		}
		return ix
	}
	for _, test := range []struct {
		have []string
		want string
		pick int64 // -1: none
	}{
		{[]string{"linux/arm64", "linux/amd64"}, "linux/amd64/v1", 1},
		{[]string{"linux/amd64", "linux/amd64"}, "linux/amd64", 0},
		{[]string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v3"}, "linux/amd64/v2", 1},
		{[]string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v4"}, "linux/amd64/v3", 1},
		{[]string{"linux/amd64/v3"}, "linux/amd64/v2", -1},
		{[]string{"linux/386", "linux/amd64"}, "linux/amd64/v4", 1},
		{[]string{"linux/386"}, "linux/amd64/v4", 0},
		{[]string{"linux/arm64"}, "linux/arm64/v8", 0},
		{[]string{"linux/arm/v6", "linux/arm/v7"}, "linux/arm/v7", 1},
		{[]string{"linux/arm/v6", "linux/arm/v7"}, "linux/arm/v6", 0},
		{[]string{"linux/arm/v7"}, "linux/arm64", 0},
		{[]string{"windows/amd64", "unknown/unknown"}, "linux/amd64", -1},
		{[]string{"unknown/unknown", "linux/x86_64"}, "linux/amd64/v3", 1},
		{[]string{"-"}, "linux/amd64", 0},
		{[]string{"-", "-"}, "linux/amd64", -1},
		{[]string{"-", "linux/s390x"}, "linux/s390x", 1},
		{nil, "linux/amd64", -1},
	} {
		part := append(strings.Split(test.want, "/"), "")
		want := Platform{OS: part[0], Architecture: part[1], Variant: part[2]}
		got, err := Choose(index(test.have...), want)
		if test.pick < 0 {
			if err == nil || !strings.Contains(err.Error(), Format(want)) {
				t.Errorf("Choose(%q, %s) = %v, %v; want an error that names the platform", test.have, test.want, got, err)
			}
			continue
		}
		if err != nil || got.Size != test.pick {
			t.Errorf("Choose(%q, %s) = %d, %v; want %d", test.have, test.want, got.Size, err, test.pick)
		}
	}
}

func TestSuits(t *testing.T) {
	amd := Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}
	for have, good := range map[string]bool{
		`{}`: true, `{"os":"linux","architecture":"amd64"}`: true, `{"architecture":"amd64"}`: true, `{"os":"linux","architecture":"386"}`: true,
		`{"os":"linux","architecture":"amd64","variant":"v2"}`: true, `{"os":"linux","architecture":"amd64","variant":"v4"}`: false,
		`{"os":"windows","architecture":"amd64"}`: false, `{"os":"linux","architecture":"arm64"}`: false,
	} {
		var p Platform
		if err := json.Unmarshal([]byte(have), &p); err != nil {
			t.Fatal(err)
		}
		err := Suits(p, amd)
		if (err == nil) != good || (err != nil && !strings.Contains(fmt.Sprint(err), Format(p))) {
			t.Errorf("Suits(%s) = %v, want %v", have, err, good)
		}
	}
}
