// Package audit has the words for what an inspection of a node finds.
//
// A Thing is something in the kernel or on a disk that carries our mark, with the
// id that it was made for. A Finding is a thing that no record stands for, a
// record whose things are missing, or something of the node that is not as it has
// to be. A Report is all findings of one look.
//
// Whoever makes a kind of thing also lists it; who knows the records compares.
package audit

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Thing is something that lies among what is ours.
type Thing struct {
	Kind  string    // "control group", "writable layer"
	Name  string    // path or name
	Owner string    // the id of the pod or container that it was made for
	Since time.Time // when it was made or last changed; zero: unknown
	// Foreign says why the thing does not count as ours, although it may have an
	// owner. It is left alone.
	Foreign string
	// Stays says why a leftover cannot be taken away by us.
	Stays  string
	Remove func(context.Context) error
}

// Key tells one thing from all others.
func (t Thing) Key() string { return t.Kind + " " + t.Name }

// What a finding is about.
const (
	Leftover   = "leftover"   // belongs to no record
	Removed    = "removed"    // was a leftover
	Quarantine = "quarantine" // a leftover that could not be removed; not tried again by itself
	Missing    = "missing"    // a record says that it is there
	Foreign    = "foreign"    // not ours, and left alone
	Wrong      = "wrong"      // the node cannot do what pods need
	Notice     = "notice"     // worth knowing; nothing is wrong
)

// Finding is one line of a report.
type Finding struct {
	About string // one of the words above
	Kind  string
	Name  string
	Owner string    `json:",omitempty"`
	Since time.Time `json:",omitzero"`
	Why   string    `json:",omitempty"` // what is wrong
	Do    string    `json:",omitempty"` // what to do about it
}

// Bad says that somebody should do something.
func (f Finding) Bad() bool {
	return f.About != Notice && f.About != Removed && f.About != Foreign
}

// Report is what one look found.
type Report struct {
	At       time.Time
	Took     time.Duration
	Looked   map[string]int // things that were looked at, by kind
	Findings []Finding
}

// Bad says that somebody should do something.
func (r Report) Bad() bool { return slices.ContainsFunc(r.Findings, Finding.Bad) }

// Add puts findings into the report.
func (r *Report) Add(list ...Finding) { r.Findings = append(r.Findings, list...) }

// Count notes what was looked at.
func (r *Report) Count(things []Thing) {
	if r.Looked == nil {
		r.Looked = map[string]int{}
	}
	for _, t := range things {
		r.Looked[t.Kind]++
	}
}

// Sort puts the worst first.
func (r *Report) Sort() {
	order := []string{Wrong, Missing, Quarantine, Leftover, Removed, Foreign, Notice}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(slices.Index(order, a.About)-slices.Index(order, b.About), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
}

// Finding is what a report says of a thing.
func (t Thing) Finding(about, why, do string) Finding {
	return Finding{About: about, Kind: t.Kind, Name: t.Name, Owner: t.Owner, Since: t.Since, Why: why, Do: do}
}

// Compare gives the things that no record stands for. Known must have been learned
// after the things were listed: a record is written before what it stands for and
// goes after it, so whoever sees a thing before finds its record afterwards.
func Compare(things []Thing, known map[string]bool) (leftovers, foreign []Thing) {
	for _, t := range things {
		switch {
		case known[t.Owner]:
		case t.Foreign != "":
			foreign = append(foreign, t)
		default:
			leftovers = append(leftovers, t)
		}
	}
	return leftovers, foreign
}

var id = regexp.MustCompile(`^[0-9a-f]{64}$`)

// IsID says that a name is one that only we give.
func IsID(name string) bool { return id.MatchString(name) }

// Folder lists what lies in a folder as things whose name gives the owner, after
// name has taken away what is before it. A missing folder is an empty one.
func Folder(dir, kind string, name func(string) string) ([]Thing, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Thing
	for _, e := range entries {
		t := Thing{Kind: kind, Name: filepath.Join(dir, e.Name()), Owner: name(e.Name())}
		if info, err := e.Info(); err == nil {
			t.Since = info.ModTime()
		} else if os.IsNotExist(err) {
			continue
		}
		if !IsID(t.Owner) {
			t.Owner, t.Foreign = "", "its name is no id of a pod or container"
		}
		list = append(list, t)
	}
	return list, nil
}

// Mounts lists the mount points below a folder, as this process sees them. The
// path must be one without links, as the kernel's table has it.
func Mounts(below string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if point := unescape.Replace(fields[4]); strings.HasPrefix(point, below+"/") {
			found = append(found, point)
		}
	}
	return found, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// Detach takes a mount out of the table.
func Detach(point string) error {
	err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == unix.EINVAL || err == unix.ENOENT {
		return nil // it is gone
	}
	return err
}
