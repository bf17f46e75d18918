package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

func TestLayerKeepsHardLinksAndSetuid(t *testing.T) {
	layer, err := NewLayer([]File{
		{Name: "bin/", Mode: 0o755},
		{Name: "bin/busybox", Mode: 0o4755, Body: []byte("x")},
		{Name: "bin/ls", Mode: 0o755, Link: "bin/busybox"},
	})
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(layer.Blob))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	if got := digestOf(content); got != layer.DiffID {
		t.Errorf("content has digest %s, layer says %s", got, layer.DiffID)
	}
	stream := tar.NewReader(bytes.NewReader(content))
	for _, want := range []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 1},
		{Name: "bin/ls", Typeflag: tar.TypeLink, Mode: 0o755, Linkname: "bin/busybox"},
	} {
		got, err := stream.Next()
		if err != nil {
			t.Fatalf("%s: %v", want.Name, err)
		}
		if got.Name != want.Name || got.Typeflag != want.Typeflag || got.Mode != want.Mode || got.Size != want.Size || got.Linkname != want.Linkname {
			t.Errorf("got %s type %c mode %o size %d link %q, want %s %c %o %d %q",
				got.Name, got.Typeflag, got.Mode, got.Size, got.Linkname, want.Name, want.Typeflag, want.Mode, want.Size, want.Linkname)
		}
	}
}
