package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
)

// File is one entry of a layer, owned by root. A name that ends in a slash is
// a directory.
type File struct {
	Name string
	Mode int64 // permission bits, with setuid and sticky as tar writes them
	Body []byte
	Link string // the earlier entry this is a hard link to
}

// Layer is a compressed tar stream with the digest of what it contains.
type Layer struct {
	Blob   []byte // gzip
	DiffID string // digest of the tar stream
}

// NewLayer packs files in the order given.
func NewLayer(files []File) (*Layer, error) {
	var blob bytes.Buffer
	content := sha256.New()
	zip := gzip.NewWriter(&blob)
	stream := tar.NewWriter(io.MultiWriter(zip, content))
	for _, file := range files {
		if err := writeFile(stream, file); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", file.Name, err)
		}
	}
	if err := stream.Close(); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return &Layer{Blob: blob.Bytes(), DiffID: fmt.Sprintf("sha256:%x", content.Sum(nil))}, nil
}

func writeFile(stream *tar.Writer, file File) error {
	header := &tar.Header{Name: file.Name, Mode: file.Mode, Size: int64(len(file.Body)), Typeflag: tar.TypeReg}
	switch {
	case file.Name[len(file.Name)-1] == '/':
		header.Typeflag = tar.TypeDir
	case file.Link != "":
		header.Typeflag, header.Linkname = tar.TypeLink, file.Link
	}
	if err := stream.WriteHeader(header); err != nil {
		return err
	}
	_, err := stream.Write(file.Body)
	return err
}
