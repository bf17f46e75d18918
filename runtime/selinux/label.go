// Package selinux knows the labels that keep containers apart where the kernel
// enforces SELinux.
//
// A Label says who a process is or whom a file belongs to. Its level holds the
// pair of categories that is a pod's own: processes reach only files with the
// categories that they have. A Policy is what the node's policy gives to
// containers, Levels hands out pairs, Relabel changes files. The package puts
// no process under a label: the process does that itself, before it executes
// its program.
package selinux

import (
	"fmt"
	"strings"
)

// Label is a security context.
type Label struct{ User, Role, Type, Level string }

// Parse reads user:role:type:level.
func Parse(text string) (Label, error) {
	parts := strings.SplitN(strings.TrimRight(text, "\x00\n"), ":", 4)
	if len(parts) != 4 {
		return Label{}, fmt.Errorf("SELinux label %q: want user:role:type:level", text)
	}
	for _, part := range parts {
		if part == "" || strings.ContainsAny(part, " \t\n\x00") {
			return Label{}, fmt.Errorf("SELinux label %q: want user:role:type:level", text)
		}
	}
	return Label{parts[0], parts[1], parts[2], parts[3]}, nil
}

func (l Label) String() string {
	return strings.Join([]string{l.User, l.Role, l.Type, l.Level}, ":")
}

// With is the label with the parts of another that are not empty.
func (l Label) With(other Label) Label {
	for _, part := range []struct {
		to   *string
		from string
	}{{&l.User, other.User}, {&l.Role, other.Role}, {&l.Type, other.Type}, {&l.Level, other.Level}} {
		if part.from != "" {
			*part.to = part.from
		}
	}
	return l
}
