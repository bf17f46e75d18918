package passwd

import (
	"bytes"
	"strings"
)

// A line of /etc/passwd:  name:password:uid:gid:comment:home:shell
// A line of /etc/group:   name:password:gid:member,member
const (
	passwdFields = 7
	groupFields  = 4
)

type userEntry struct {
	name, home string
	uid, gid   uint32
}

// findUser takes the first line that fits. A number without a line is fine and
// gets group 0, as with the other runtimes; a name without one is an error.
// A line with a broken number never fits a number, and is an error when it
// fits a name: reading it as 0 would make the user root.
func findUser(who wanted, passwd []byte) (userEntry, error) {
	for line := range bytes.Lines(passwd) {
		f := fields(line, passwdFields)
		if f == nil {
			continue
		}
		uid, uidErr := parseID("uid", f[2])
		if who.name == "" && (uidErr != nil || uid != who.uid) || who.name != "" && f[0] != who.name {
			continue
		}
		gid, gidErr := parseID("gid", f[3])
		switch {
		case uidErr != nil:
			return userEntry{}, bad(who.field, f[0], "/etc/passwd: %v", uidErr)
		case gidErr != nil:
			return userEntry{}, bad(who.field, f[0], "/etc/passwd: %v", gidErr)
		case hasControl(f[5]):
			return userEntry{}, bad(who.field, f[0], "/etc/passwd: home %q holds control characters", f[5])
		}
		home := f[5]
		if home == "" {
			home = "/"
		}
		return userEntry{name: f[0], home: home, uid: uid, gid: gid}, nil
	}
	if who.name != "" {
		return userEntry{}, bad(who.field, who.name, "not in /etc/passwd of the image")
	}
	return userEntry{uid: who.uid, home: "/"}, nil
}

func findGroup(name string, group []byte) (uint32, error) {
	for line := range bytes.Lines(group) {
		f := fields(line, groupFields)
		if f == nil || f[0] != name {
			continue
		}
		gid, err := parseID("gid", f[2])
		if err != nil {
			return 0, bad("group", name, "/etc/group: %v", err)
		}
		return gid, nil
	}
	return 0, bad("group", name, "not in /etc/group of the image")
}

// memberships are the groups that list the user. A line with a broken number
// is left out: it grants nothing.
func memberships(user string, group []byte) []uint32 {
	var ids []uint32
	for line := range bytes.Lines(group) {
		if !bytes.Contains(line, []byte(user)) {
			continue
		}
		f := fields(line, groupFields)
		if f == nil {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if strings.TrimSpace(member) != user {
				continue
			}
			if gid, err := parseID("gid", f[2]); err == nil {
				ids = append(ids, gid)
			}
			break
		}
	}
	return ids
}

// fields splits a line, or answers nil for a line that can name nobody:
// comments, lines with too few fields or a name that is none (NIS's "+").
// Missing fields at the end are taken as empty, as C libraries do.
func fields(line []byte, want int) []string {
	line = bytes.TrimRight(line, "\r\n")
	if len(line) == 0 || line[0] == '#' {
		return nil
	}
	f := strings.SplitN(string(line), ":", want)
	if len(f) < groupFields-1 || checkName("name", f[0]) != nil {
		return nil
	}
	for len(f) < want {
		f = append(f, "")
	}
	return f
}
