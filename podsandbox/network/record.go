package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"cri-mini/internal/atomicfile"
	"cri-mini/internal/audit"
	"cri-mini/podsandbox/network/internal/cni"
)

// The values of record.Form.
const (
	formBuiltin = "builtin"
	formCNI     = "cni"
)

// record is what is known of a pod on disk: its addresses (that is the lease),
// its host ports, and how it can be taken down. It is written before anything
// is done for the pod and removed after everything is undone.
type record struct {
	ID         string
	Name       string `json:",omitempty"`
	Namespace  string `json:",omitempty"`
	Form       string
	Addresses  []netip.Prefix  `json:",omitempty"`
	Interfaces []Interface     `json:",omitempty"`
	Ports      []PortMapping   `json:",omitempty"`
	CNI        *cni.Attachment `json:",omitempty"`
	// Failures counts the attempts to take the pod down. From the first on,
	// Collect goes on trying, whoever asks for it.
	Failures int `json:",omitempty"`
}

func (r *record) result() Result {
	res := Result{Interfaces: r.Interfaces}
	for _, a := range r.Addresses {
		res.IPs = append(res.IPs, a.Addr())
	}
	return res
}

// title names the pod for a person.
func (r *record) title() string {
	if r.Name == "" {
		return "pod " + r.ID
	}
	return fmt.Sprintf("pod %s/%s (%s)", r.Namespace, r.Name, r.ID)
}

// records is the directory of all records.
type records struct{ dir string }

const recordSuffix = ".json"

var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func openRecords(dir string) (records, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return records{}, err
	}
	return records{dir}, atomicfile.Sweep(dir)
}

func (r records) path(id string) string { return filepath.Join(r.dir, id+recordSuffix) }

// save writes a record. That of an external attachment must survive a power
// cut, because what plugins keep does; the built-in form dies with the kernel.
func (r records) save(rec record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("record of %s: %w", rec.ID, err)
	}
	write := atomicfile.Volatile
	if rec.Form == formCNI {
		write = atomicfile.Durable
	}
	if err := write(r.path(rec.ID), data, 0o600); err != nil {
		return fmt.Errorf("record of %s: %w", rec.ID, err)
	}
	return nil
}

func (r records) remove(id string) error {
	if err := os.Remove(r.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record of %s: %w", id, err)
	}
	return nil
}

// load reads all records. One that a power cut left empty is dropped, for what
// it stood for is gone with the boot, and a damaged one too. A file whose name is no
// id was put there by somebody else.
func (r records) load(log *slog.Logger) ([]record, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var all []record
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		rec, err := r.read(id)
		switch {
		case err == nil:
			all = append(all, rec)
		case !audit.IsID(id):
			log.Warn("leave a file alone that is no record of a pod", "file", r.path(id), "err", err)
		case errors.As(err, new(*fs.PathError)): // it may be whole
			return nil, err
		default:
			level := slog.LevelWarn
			if errors.Is(err, atomicfile.ErrUnwritten) {
				level = slog.LevelInfo
			}
			log.Log(context.Background(), level, "drop damaged record of a pod", "file", r.path(id), "err", err)
			if err := r.remove(id); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func (r records) read(id string) (rec record, err error) {
	if err := atomicfile.ReadJSON(r.path(id), &rec); err != nil {
		return rec, err
	}
	return rec, rec.check(id)
}

func (r *record) check(id string) error {
	switch {
	case r.ID != id:
		return fmt.Errorf("it is of pod %.80q", r.ID)
	case r.Form == formBuiltin && len(r.Addresses) > 0, r.Form == formCNI && r.CNI != nil:
		return nil
	}
	return fmt.Errorf("form %.80q without what belongs to it", r.Form)
}

func (r records) close() error { return os.RemoveAll(r.dir) }
