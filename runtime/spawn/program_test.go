package spawn

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func kubelet() spec.Container {
	score := 999
	return spec.Container{
		ID: "c", Sandbox: "p", PID: spec.PIDContainer,
		MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
		Mounts: []spec.Mount{{Target: "/etc/hosts"}, {Target: "/data/in"}},
		Process: spec.Process{
			Args: []string{"app", "-v"}, Env: []string{"PATH=/usr/bin:/bin"}, Cwd: "/srv",
			User: spec.User{UID: 1000, GID: 1000, Groups: []uint32{1000, 2000}}, OOMScoreAdj: &score,
			Capabilities: spec.Capabilities{Bounding: 1 << unix.CAP_KILL, Permitted: 1 << unix.CAP_KILL, Effective: 1 << unix.CAP_KILL},
			Seccomp:      make([]byte, 16),
			Rlimits:      []spec.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 1024, Hard: 4096}},
		},
	}
}

// Each program as text. A change of order shows here, and has to be wanted.
func TestProgramsAreWhatTheyWere(t *testing.T) {
	plain, privileged, terminal, own := kubelet(), kubelet(), kubelet(), kubelet()
	privileged.Privileged, privileged.Process.NoNewPrivs = true, true
	terminal.Process.Terminal = true
	own.ReadonlyRootfs = true
	own.Mounts = []spec.Mount{{Target: "/dev"}, {Target: "/proc"}}
	folders := []bool{false, true}
	around := Surroundings{Folders: folders, LastCap: 5}
	user, shared := around, around
	user.User = true
	shared.JoinPID, shared.Copy, shared.HostNetwork, shared.HostUTS = true, true, true, true
	labelled := kubelet()
	labelled.Process.AppArmor, labelled.Process.NoNewPrivs = "cri-mini-default", true
	labelled.Process.SELinux, labelled.Rootfs.Label = "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
	exec := plain.Process
	exec.NoNewPrivs = true
	onTerminal := terminal.Process
	onTerminal.Width, onTerminal.Height = 120, 40
	for name, p := range map[string]Program{
		"container":          Container(plain, around),
		"container-nnp":      Container(privileged, around),
		"container-terminal": Container(terminal, around),
		"container-own-dev":  Container(own, Surroundings{Folders: []bool{true, true}, LastCap: 5}),
		"container-user":     Container(plain, user),
		"container-shared":   Container(plain, shared),
		"container-labelled": Container(labelled, user),
		"exec":               Exec(exec, around),
		"exec-labelled":      Exec(labelled.Process, shared),
		"exec-terminal-user": Exec(onTerminal, user),
		"init":               Init([]string{"init"}, []string{"A=b"}, nil, "", nobody, around),
		"init-user":          Init([]string{"init"}, nil, nil, labelled.Rootfs.Label, nobody, user),
	} {
		if _, err := p.Link(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		path := filepath.Join("testdata", name+".golden")
		got := p.String()
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s differs from %s (%v); -update rewrites it:\n%s", name, path, err, got)
		}
	}
}

func TestLinkRefusesWhatCannotWork(t *testing.T) {
	for name, p := range map[string]Program{
		"unknown result": {Ops: []Op{{Args: []Arg{Saved("x")}}}},
		"unknown file":   {Ops: []Op{{Args: []Arg{File("x")}}}},
		"long skip":      {Ops: []Op{{SkipOK: 1}}},
		"sixth saved":    {Ops: []Op{{Save: "x"}, {Args: []Arg{Num(0), Num(0), Num(0), Num(0), Num(0), Saved("x")}}}},
	} {
		if _, err := p.Link(); err == nil {
			t.Errorf("%s was linked", name)
		}
	}
}
