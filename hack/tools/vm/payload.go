package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// unnamed makes a file that nobody needs to remove.
func unnamed() (*os.File, error) {
	file, err := os.CreateTemp("", "vm-")
	if err != nil {
		return nil, err
	}
	return file, os.Remove(file.Name())
}

// writePayload packs files and directories. PATH:NAME gives one another name.
func writePayload(w io.Writer, payload []string) error {
	buffer := bufio.NewWriterSize(w, 1<<20)
	archive := tar.NewWriter(buffer)
	for _, item := range payload {
		path, name, named := strings.Cut(item, ":")
		if !named {
			absolute, err := filepath.Abs(path)
			if err != nil {
				return err
			}
			name = filepath.Base(absolute)
		}
		if err := pack(archive, path, name); err != nil {
			return fmt.Errorf("-in %s: %w", item, err)
		}
	}
	return errors.Join(archive.Close(), buffer.Flush())
}

// pack adds what path is, a link followed, and all below it.
func pack(archive *tar.Writer, path, name string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	return filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(path, at)
		if err != nil {
			return err
		}
		return packOne(archive, at, filepath.Join(name, below), entry)
	})
}

func packOne(archive *tar.Writer, path, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	header.Name = name
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(archive, file)
	return err
}

// readResults unpacks what the guest left. It stays below dir whatever the guest
// wrote.
func readResults(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	archive := tar.NewReader(bufio.NewReaderSize(r, 1<<20))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("results: %w", err)
		}
		if err := readOne(root, header, archive); err != nil {
			return fmt.Errorf("results: %w", err)
		}
	}
}

func readOne(root *os.Root, header *tar.Header, body io.Reader) error {
	name := filepath.Clean(header.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		file, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, header.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(file, body)
		return errors.Join(err, file.Close())
	default:
		return fmt.Errorf("%s: neither a file nor a directory", header.Name)
	}
}
