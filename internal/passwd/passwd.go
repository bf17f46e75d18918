// Package passwd decides which user and groups a process of a container gets.
//
// A Request is what the caller, the image or the command line asked for. A
// User is the answer in numbers. In between stand the image's own /etc/passwd
// and /etc/group, which are hostile bytes: the caller reads them (regular file
// below the container's root, at most MaxFile bytes), this package only parses.
package passwd

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxFile is the largest /etc/passwd or /etc/group that is looked at.
const MaxFile = 1 << 20

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// Request names a user in one of three ways. RunAsUser and RunAsUsername
// exclude each other and stand before ImageUser.
type Request struct {
	RunAsUser     *int64
	RunAsUsername string
	RunAsGroup    *int64
	ImageUser     string // the image's USER, or `exec --user`: name or uid, then perhaps :group or :gid

	SupplementalGroups []int64
	Strict             bool // leave out the groups that the image's /etc/group lists for the user
}

// User is who a process runs as.
type User struct {
	UID, GID uint32
	// Groups are all supplementary groups, the primary one among them, so that
	// a file which denies its group access denies it to the process too
	// (CVE-2022-2995). Ascending and without doubles: the order in which the
	// kernel keeps them and in which a status reports them.
	Groups []uint32
	Home   string // "/" when the image does not know the user
	Name   string // empty when the image does not know the user
}

// Error is what is wrong with a request, or with what the image says of whom it
// names.
type Error struct {
	Field  string // as in the interface: run_as_user; "user" and "group" are those of ImageUser
	Value  string
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Reason) }

func bad(field, value, reason string, args ...any) error {
	return &Error{Field: field, Value: value, Reason: fmt.Sprintf(reason, args...)}
}

// Resolve answers a request. Digits are always a number and never looked up as
// a name: an image could otherwise map "4294967296" to root (CVE-2024-40635).
func Resolve(req Request, passwd, group []byte) (User, error) {
	if len(passwd) > MaxFile || len(group) > MaxFile {
		return User{}, fmt.Errorf("/etc/passwd or /etc/group of the image: larger than %d bytes", MaxFile)
	}
	who, err := req.user()
	if err != nil {
		return User{}, err
	}
	entry, err := findUser(who, passwd)
	if err != nil {
		return User{}, err
	}
	gid, err := req.primary(who, entry, group)
	if err != nil {
		return User{}, err
	}
	groups := []uint32{gid}
	for i, n := range req.SupplementalGroups {
		id, err := checkID("supplemental_groups["+strconv.Itoa(i)+"]", n)
		if err != nil {
			return User{}, err
		}
		groups = append(groups, id)
	}
	if !req.Strict && entry.name != "" {
		groups = append(groups, memberships(entry.name, group)...)
	}
	slices.Sort(groups)
	groups = slices.Compact(groups)
	if len(groups) > maxGroups {
		return User{}, bad("supplemental_groups", strconv.Itoa(len(groups))+" groups", "the kernel takes %d", maxGroups)
	}
	return User{UID: entry.uid, GID: gid, Groups: groups, Home: entry.home, Name: entry.name}, nil
}

// wanted is the user part of a request: a number, or a name to look up.
type wanted struct {
	field string
	name  string // empty when uid counts
	uid   uint32
	group string // what followed the colon
}

func (req Request) user() (wanted, error) {
	switch {
	case req.RunAsUser != nil && req.RunAsUsername != "":
		return wanted{}, bad("run_as_username", req.RunAsUsername, "run_as_user %d is set too", *req.RunAsUser)
	case req.RunAsUser != nil:
		uid, err := checkID("run_as_user", *req.RunAsUser)
		return wanted{field: "run_as_user", uid: uid}, err
	case req.RunAsUsername != "":
		return parseUser("run_as_username", req.RunAsUsername)
	case req.RunAsGroup != nil:
		return wanted{}, bad("run_as_group", strconv.FormatInt(*req.RunAsGroup, 10), "needs run_as_user or run_as_username")
	case req.ImageUser == "":
		return wanted{field: "user"}, nil
	}
	name, group, colon := strings.Cut(req.ImageUser, ":")
	if colon && group == "" || strings.Contains(group, ":") {
		return wanted{}, bad("user", req.ImageUser, "want user or user:group")
	}
	w, err := parseUser("user", name)
	w.group = group
	return w, err
}

func parseUser(field, s string) (wanted, error) {
	if isNumber(s) {
		uid, err := parseID(field, s)
		return wanted{field: field, uid: uid}, err
	}
	return wanted{field: field, name: s}, checkName(field, s)
}

func (req Request) primary(who wanted, entry userEntry, group []byte) (uint32, error) {
	switch {
	case req.RunAsGroup != nil:
		return checkID("run_as_group", *req.RunAsGroup)
	case who.group == "":
		return entry.gid, nil
	case isNumber(who.group):
		return parseID("group", who.group)
	}
	if err := checkName("group", who.group); err != nil {
		return 0, err
	}
	return findGroup(who.group, group)
}

// checkID keeps ids in the range that no interface mistakes for -1 or for
// something else: the kernel's own limit is twice as large.
func checkID(field string, n int64) (uint32, error) {
	if n < 0 || n > math.MaxInt32 {
		return 0, bad(field, strconv.FormatInt(n, 10), "not between 0 and %d", math.MaxInt32)
	}
	return uint32(n), nil
}

func parseID(field, s string) (uint32, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !isNumber(s) { // ParseInt also takes a sign
		return 0, bad(field, s, "not a number between 0 and %d", math.MaxInt32)
	}
	return checkID(field, n)
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// checkName refuses what no passwd line can hold and what would do harm in a
// log, a status or an environment. A leading sign is refused because "+5" and
// "-1" look like numbers to other parsers.
func checkName(field, s string) error {
	switch {
	case s == "":
		return bad(field, s, "empty name")
	case len(s) > 256:
		return bad(field, s[:32]+"...", "name of %d bytes, at most 256", len(s))
	case s[0] == '+' || s[0] == '-' || strings.ContainsAny(s, ":,") || hasControl(s):
		return bad(field, s, "not a name")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
