package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// unpack reads an archive from a disk. It comes from the program outside, which
// could do anything here anyway.
func unpack(disk, dir string) error {
	file, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewReader(bufio.NewReaderSize(file, 1<<20))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackOne(filepath.Join(dir, header.Name), header, archive); err != nil {
			return err
		}
	}
}

func unpackOne(path string, header *tar.Header, body io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := header.FileInfo().Mode().Perm()
	switch header.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, mode)
	case tar.TypeSymlink:
		return os.Symlink(header.Linkname, path)
	case tar.TypeReg:
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, body)
		return errors.Join(err, file.Close())
	default:
		return fmt.Errorf("%s: entry of type %q", header.Name, header.Typeflag)
	}
}

// pack writes an archive to a disk, and returns when it is there.
func pack(disk, dir string) error {
	file, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	if err := archive.AddFS(os.DirFS(dir)); err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	return errors.Join(archive.Close(), file.Sync())
}
