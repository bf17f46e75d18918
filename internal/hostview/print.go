package hostview

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print shows a View to people.
func (v *View) Print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "process\t%d  %s\n", v.PID, strings.Join(v.Command, " "))
	fmt.Fprintf(t, "uid, gid\t%s, %s  (real effective saved fs)\n", v.User, v.Group)
	fmt.Fprintf(t, "uid map\t%s\n", strings.Join(v.UIDMap, "; "))
	fmt.Fprintf(t, "gid map\t%s\n", strings.Join(v.GIDMap, "; "))
	fmt.Fprintf(t, "seccomp\t%s\n", v.Seccomp)
	fmt.Fprintf(t, "no new privs\t%v\n", v.NoNewPrivs)
	for _, s := range v.Capabilities {
		names := strings.ToLower(strings.Join(s.Names, " "))
		if names == "" {
			names = "none"
		}
		fmt.Fprintf(t, "%s capabilities\t%s\n", s.Name, names)
	}
	for _, n := range v.Namespaces {
		whose := "its own"
		if n.Shared != "" {
			whose = "the " + n.Shared + "'s"
		}
		fmt.Fprintf(t, "%s namespace\t%s  %s\n", n.Kind, n.ID, whose)
	}
	fmt.Fprintf(t, "enter with\t%s\n", v.Nsenter)
	fmt.Fprintf(t, "cgroup\t%s\n", v.Cgroup.Path)
	if v.Cgroup.Dir != "" {
		fmt.Fprintf(t, "cgroup folder\t%s\n", v.Cgroup.Dir)
	}
	for _, f := range v.Cgroup.Files {
		fmt.Fprintf(t, "  %s\t%s\n", f.Name, strings.ReplaceAll(f.Value, "\n", "; "))
	}
	fmt.Fprintln(t, "mounts")
	for _, m := range v.Mounts {
		source := m.Source
		if m.Root != "/" {
			source += m.Root
		}
		fmt.Fprintf(t, "  %s\t%s  %s  %s\n", m.Target, m.Type, source, m.Options)
	}
	return t.Flush()
}
