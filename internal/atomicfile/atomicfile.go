// Package atomicfile writes small files so that a reader, or a start after a
// crash, sees either the old content or the new one, never a part.
//
// Volatile leaves durability to the kernel: enough against the death of a
// process. Durable also survives a power cut and costs a flush of the disk.
package atomicfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cri-mini/internal/crashpoint"
)

// tempMark stands in the name of every file that was not renamed yet, so that
// Sweep finds what a crash left.
const tempMark = ".new-"

// Volatile writes data to path by way of a temporary file in the same folder.
func Volatile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, false)
}

// Durable is Volatile, and returns only when file and name are on the disk.
func Durable(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, true)
}

// JSON writes v as indented JSON; see Volatile.
func JSON(path string, v any) error { return writeJSON(path, v, false) }

// DurableJSON writes v as indented JSON; see Durable.
func DurableJSON(path string, v any) error { return writeJSON(path, v, true) }

func writeJSON(path string, v any, durable bool) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return write(path, append(data, '\n'), 0o600, durable)
}

// ErrUnwritten is a file whose name reached the disk before the power went, and
// whose content did not, as Volatile allows. Most file systems leave no bytes
// then, some leave zeros.
var ErrUnwritten = errors.New("nothing of it was on the disk when the node lost its power")

// ReadJSON reads what JSON has written. Errors are those of os.ReadFile,
// ErrUnwritten, and those of package json.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(bytes.Trim(data, "\x00")) == 0 {
		return fmt.Errorf("read %s: %w", path, ErrUnwritten)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Sweep removes the unfinished files that a crash left in dir.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed error
	for _, e := range entries {
		if e.Type().IsRegular() && strings.Contains(e.Name(), tempMark) {
			failed = errors.Join(failed, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return failed
}

func write(path string, data []byte, mode fs.FileMode, durable bool) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, base+tempMark)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if durable {
		if err = f.Sync(); err != nil {
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	crashpoint.Here("file.written")
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	crashpoint.Here("file.renamed")
	if durable {
		return syncDir(dir)
	}
	return nil
}

// syncDir makes the new name durable: rename alone only orders it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
