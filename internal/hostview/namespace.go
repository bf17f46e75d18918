package hostview

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// kinds of namespaces with the words of nsenter(1), in its order.
var kinds = []struct{ name, option string }{
	{"user", "--user"},
	{"mnt", "--mount"},
	{"uts", "--uts"},
	{"ipc", "--ipc"},
	{"net", "--net"},
	{"pid", "--pid"},
	{"cgroup", "--cgroup"},
	{"time", "--time"},
}

// ofPod are those that the containers of a pod share by their nature.
var ofPod = map[string]bool{"uts": true, "ipc": true, "net": true, "user": true}

func (v *View) namespaces(dir string, podPID int) error {
	for _, kind := range kinds {
		id, err := os.Readlink(filepath.Join(dir, "ns", kind.name))
		if err != nil {
			return err
		}
		n := Namespace{Kind: kind.name, ID: id}
		switch {
		case id == ofHost(kind.name):
			n.Shared = "host"
		case ofPod[kind.name], podPID != 0 && id == link(podPID, kind.name), kind.name == "pid" && !v.first:
			n.Shared = "pod"
		}
		v.Namespaces = append(v.Namespaces, n)
	}
	return nil
}

func link(pid int, kind string) string {
	id, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns", kind))
	if err != nil {
		return ""
	}
	return id
}

// ofHost is the namespace of the machine's first process or, where that may
// not be looked at, our own.
func ofHost(kind string) string {
	if id := link(1, kind); id != "" {
		return id
	}
	return link(os.Getpid(), kind)
}

// nsenter leaves out what is the host's anyway.
func nsenter(pid int, all []Namespace) string {
	words := []string{"nsenter", "--target", fmt.Sprint(pid)}
	for i, n := range all {
		if n.Shared != "host" {
			words = append(words, kinds[i].option)
		}
	}
	return strings.Join(append(words, "--", "/bin/sh"), " ")
}
