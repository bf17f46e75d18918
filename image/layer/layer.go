// Package layer keeps the unpacked layers of images.
//
// A Layer is what one uncompressed tar archive of an image holds, ready to be
// a lower layer of overlayfs, named by the digest of the archive (the diff id)
// and never changed once complete. A Store keeps layers in one of two forms:
// as directories, or as one EROFS image file per layer. A Pending is a layer
// that is written but that nobody can see yet.
//
// The bytes come from strangers. What they may say is decided once, for both
// forms (see entry.go and the package tree), before anything reaches the disk.
// The package knows nothing of registries, compression, images or pods, and
// mounts nothing but the tiny image of Probe.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// The forms of a Store.
const (
	Directory = "directory"
	Erofs     = "erofs"
	Auto      = "auto" // only for Open: the form in use, or the default
)

// ErrNotFound says that a store does not have a layer.
var ErrNotFound = errors.New("layer not found")

// ErrUnsupported says that the kernel lacks what a form needs.
type ErrUnsupported struct {
	Feature string // in words for people, such as "file-backed erofs mount"
	Err     error  // what the kernel answered
}

func (e *ErrUnsupported) Error() string {
	return fmt.Sprintf("kernel feature missing: %s: %v", e.Feature, e.Err)
}

func (e *ErrUnsupported) Unwrap() error { return e.Err }

// Info is what is known of a layer without looking into it.
type Info struct {
	DiffID digest.Digest
	Size   uint64 // bytes on disk
	Inodes uint64 // files, directories and others, hard links counted once

	// Opaque says that the layer hides all below it. Overlayfs does not look
	// at such a mark on the root of a layer: leave the lower ones out.
	Opaque bool `json:",omitzero"`
}

// Store keeps unpacked layers, named by diff id. It is safe for concurrent use.
type Store interface {
	// Form is Directory or Erofs and tells what Path leads to.
	Form() string

	// Write unpacks an uncompressed tar stream, which it reads to the end.
	// Nothing is visible until Commit. Errors name the entry and the reason,
	// and leave nothing behind. It returns only when it no longer reads.
	Write(ctx context.Context, tar io.Reader) (Pending, error)

	// Path is the directory, or the EROFS image, of a layer, or ErrNotFound.
	Path(diffID digest.Digest) (string, error)

	// List tells of all layers, in no order.
	List() ([]Info, error)

	// Remove makes a layer disappear at once and frees its space later. The
	// caller knows that no container uses it. ErrNotFound if there is none.
	Remove(diffID digest.Digest) error

	// Verify compares what is on the disk with what was written and tells of
	// each difference. ErrNotFound, or ErrNoIndex if nothing is known of it.
	Verify(ctx context.Context, diffID digest.Digest, found func(Difference)) error

	// Replaced lists the layers that Pending.Replace took the place of. They
	// stay until RemoveReplaced; the caller knows when no container uses one.
	Replaced() ([]Replaced, error)
	RemoveReplaced(Replaced) error

	// Folders lists what lies where complete layers are, also what List does
	// not know and nobody can use; Drop removes such a folder.
	Folders() ([]Folder, error)
	Drop(f Folder) error

	// Sweep removes what a crash or a power cut left. Call it at start; it
	// does not harm what is being written meanwhile.
	Sweep() error
}

// Pending is a layer that is complete but not part of the store.
type Pending interface {
	// DiffID is the sha256 of the tar bytes read. Compare it with the one the
	// image promises before Commit.
	DiffID() digest.Digest
	Info() Info

	// Commit makes the layer visible, atomically. It succeeds also when the
	// store has the layer already.
	Commit() error

	// Replace puts it in the place of the layer that the store has, in one
	// step, when it is on stable storage and read again from there. At no
	// moment, not even after a power cut, is there less than one of the two.
	// After ErrNotDurable it has its place nevertheless.
	Replace(ctx context.Context) error

	// Discard removes it. After Commit or Replace it does nothing.
	Discard() error
}
