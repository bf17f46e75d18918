package manifest

import (
	"bytes"
	"encoding/json"
	"mime"
	"regexp"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzParse: what is accepted is one thing and no other, holds nothing that the
// store may not be asked for, and says the same when it is written out again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		noMediaDoc,
		`{"manifests":[{"mediaType":"` + ociType + `","digest":"` + sum + `","platform":{"os":"linux"}}]}`,
		`{"layers":null,"config":null}`,
		`{"mediaType":null,"manifests":{}}`,
		`{"schemaVersion":2,"mediaType":"` + dockerIndex + `","manifests":[{"digest":"` + sum + `","size":7,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}`,
		`{"mediaType":"` + ociType + `","annotations":{"a":"b","A":"c"},"subject":{"digest":"` + sum + `"},` + noMediaDoc[1:],
		`{"MediaType":"` + ociIndex + `",` + noMediaDoc[1:],
	} {
		f.Add([]byte(s), ociType)
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, data []byte, contentType string) {
		d, err := Parse(data, contentType)
		if err != nil {
			return
		}
		if sent, _, err := mime.ParseMediaType(contentType); err == nil && known(sent) && sent != d.MediaType {
			t.Fatalf("sent as %s, taken as %s", sent, d.MediaType)
		}
		var all []ocispec.Descriptor
		var inside string
		switch {
		case d.Index != nil && d.Manifest == nil && isIndex(d.MediaType):
			all, inside = d.Index.Manifests, d.Index.MediaType
			choice(t, d.Index)
		case d.Manifest != nil && d.Index == nil && known(d.MediaType) && !isIndex(d.MediaType):
			all, inside = append(d.Manifest.Layers, d.Manifest.Config), d.Manifest.MediaType
			if len(d.Manifest.Layers) > MaxLayers || d.Manifest.Config.Size > MaxConfigSize {
				t.Fatalf("%d layers, config of %d bytes", len(d.Manifest.Layers), d.Manifest.Config.Size)
			}
		default:
			t.Fatalf("%+v is neither or both", d)
		}
		if inside != "" && inside != d.MediaType {
			t.Fatalf("says it is %s, taken as %s", inside, d.MediaType)
		}
		for _, one := range all {
			if !digestForm.MatchString(string(one.Digest)) || one.Size < 0 {
				t.Fatalf("descriptor %+v", one)
			}
		}
		sameAgain(t, d)
	})
}

var digestForm = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// choice is one of the index, or none.
func choice(t *testing.T, index *ocispec.Index) {
	got, err := Choose(index, Host())
	if err != nil {
		return
	}
	for _, m := range index.Manifests {
		if m.Digest == got.Digest && m.Size == got.Size {
			return
		}
	}
	t.Fatalf("chose %+v, which is not in the index", got)
}

// sameAgain writes a document out, now with its type, and reads it again.
func sameAgain(t *testing.T, d Document) {
	first := written(t, d)
	again, err := Parse(first, "")
	if err != nil {
		t.Fatalf("%s: reads no more: %v", first, err)
	}
	if second := written(t, again); again.MediaType != d.MediaType || !bytes.Equal(first, second) {
		t.Fatalf("%s came back as %s", first, second)
	}
}

func written(t *testing.T, d Document) []byte {
	var whole any = d.Manifest
	if d.Index != nil {
		d.Index.MediaType, whole = d.MediaType, d.Index
	} else {
		d.Manifest.MediaType = d.MediaType
	}
	data, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
