package structure

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// ours says for each package of ours which others of ours it may import. The
// first line whose left side fits a package counts. "x/..." is x and all below.
//
//	cmd → cri → podsandbox → { image, runtime/executor, podsandbox/network }
//
// Two arrows of the picture are not imports: podsandbox says what it needs of
// an executor as an interface, and values of runtime/spec pass between them.
var ours = []struct{ who, may string }{
	{"cmd/cri-mini", "cri cri/stream podsandbox podsandbox/history podsandbox/network image image/... runtime/executor runtime/cgroup runtime/cgroup/systemd runtime/boot runtime/seccomp runtime/apparmor runtime/selinux runtime/capability runtime/spec internal/..."},
	{"cri", "cri/stream podsandbox podsandbox/history podsandbox/metrics image image/reference image/registry runtime/spec internal/..."},
	{"cri/stream", "podsandbox runtime/spec internal/..."},
	// The other face of the daemon, towards its own command line.
	{"internal/admin", "podsandbox podsandbox/history image image/... runtime/spec internal/..."},
	// What that command line shows of the kernel.
	{"internal/hostview", "runtime/capability internal/..."},

	{"podsandbox", "podsandbox/plan podsandbox/cdi podsandbox/history podsandbox/metrics podsandbox/network image runtime/spec runtime/capability runtime/seccomp runtime/apparmor runtime/selinux internal/..."},
	{"podsandbox/metrics", "runtime/spec"},
	{"podsandbox/history", "internal/..."},
	{"podsandbox/plan", "podsandbox/cdi runtime/spec runtime/capability runtime/seccomp runtime/apparmor runtime/selinux internal/..."},
	{"podsandbox/cdi", "runtime/spec"},
	{"podsandbox/network/...", "podsandbox/network/internal/... internal/..."},

	{"image/...", "image/... internal/..."},

	{"runtime/spec", ""},
	{"runtime/spawn", "runtime/spec"},
	{"runtime/wire", "runtime/spawn"},
	{"runtime/monitor", "runtime/spawn runtime/wire internal/broken internal/crashpoint internal/timerslack"},
	{"runtime/boot", "runtime/monitor internal/crashpoint internal/timerslack"},
	{"runtime/internal/...", "runtime/spec"},
	{"runtime/capability", "internal/..."},
	{"runtime/seccomp", "internal/..."},
	{"runtime/apparmor", "internal/..."},
	{"runtime/selinux", "internal/..."},
	{"runtime/cgroup", "runtime/spec internal/..."},
	{"runtime/cgroup/systemd", "internal/..."},
	{"runtime/executor", "runtime/... internal/..."},

	{"internal/testregistry", "internal/testtool"},
	{"internal/...", "internal/atomicfile internal/audit internal/undo internal/socket internal/crashpoint"},
	{"hack/...", "internal/..."},
	{"test/...", "internal/..."},
}

// only says which packages of ours may import others of weight.
var only = []struct{ what, who string }{
	{"google.golang.org/grpc/...", "cri cmd/cri-mini test/..."},
	{"k8s.io/cri-api/...", "cri cri/stream podsandbox podsandbox/plan internal/admin cmd/cri-mini"},
	{"github.com/moby/spdystream/...", "cri/stream"},
	{"github.com/gorilla/websocket", "cri/stream"},
	{"github.com/containerd/cgroups/...", "runtime/cgroup"},
	{"github.com/cilium/ebpf/...", "runtime/cgroup"},
	{"github.com/godbus/dbus/...", "runtime/cgroup/systemd"},
	{"go.yaml.in/...", "podsandbox/cdi"},
	{"tags.cncf.io/...", "podsandbox/cdi"},
	{"github.com/containernetworking/...", "podsandbox/network/internal/cni"},
	{"github.com/google/nftables/...", "podsandbox/network/internal/firewall"},
	{"oras.land/...", "image/registry"},
	{"net/http", "image/registry cri/stream internal/admin internal/testregistry cmd/cri-mini"},
	// What starts a process: CNI plugins are programs, as is the compiler of
	// AppArmor's profiles, our own binary is executed again as the monitor, and a scope of systemd
	// needs a process.
	{"os/exec", "podsandbox/network/internal/cni runtime/apparmor runtime/executor runtime/cgroup/systemd cmd/cri-mini internal/testtool internal/enclosure hack/... test/cluster"},
}

// light are the packages from outside that the program of the monitor may
// contain. Nothing here has an init of any size.
var light = []string{
	"bytes", "cmp", "context", "encoding", "encoding/binary", "errors", "fmt", "io", "io/fs", "iter", "math", "math/bits", "os", "path",
	"reflect", "runtime", "slices", "sort", "strconv", "strings", "sync", "sync/atomic", "syscall", "time", "unicode", "unicode/utf8", "unsafe",
	"golang.org/x/sys/unix",
}

const module = "cri-mini/"

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func list(t *testing.T) []pkg {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Imports,Deps,Standard", "./...")
	command.Dir = root
	output, err := command.Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("go list: %v\n%s", err, failed.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(output))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// fits tells whether a package is among patterns, separated by spaces.
func fits(name, patterns string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(pattern string) bool {
		if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
			return name == tree || strings.HasPrefix(name, tree+"/")
		}
		return name == pattern
	})
}

func TestImportsPointDownwards(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		i := slices.IndexFunc(ours, func(r struct{ who, may string }) bool { return fits(name, r.who) })
		if i < 0 {
			t.Errorf("%s has no place in the picture", name)
			continue
		}
		for _, imported := range p.Imports {
			if other, ok := strings.CutPrefix(imported, module); ok && !fits(other, ours[i].may) {
				t.Errorf("%s imports %s; it may import: %s", name, other, ours[i].may)
			}
		}
	}
}

func TestHeavyPackagesStayInTheirPlace(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, rule := range only {
			for _, imported := range p.Imports {
				if fits(imported, rule.what) && !fits(name, rule.who) {
					t.Errorf("%s imports %s, which only these may: %s", name, imported, rule.who)
				}
			}
		}
	}
}

func TestMonitorContainsLittle(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module+"runtime/boot" {
			continue
		}
		if len(p.Deps) < 10 {
			t.Fatalf("%s depends on %v: go list told too little", p.ImportPath, p.Deps)
		}
		for _, dep := range p.Deps {
			// The standard library's own parts are its business.
			internal := strings.HasPrefix(dep, "internal/") || strings.Contains(dep, "/internal/")
			if !internal && !strings.HasPrefix(dep, module) && !slices.Contains(light, dep) {
				t.Errorf("the monitor contains %s", dep)
			}
		}
		return
	}
	t.Fatal("runtime/boot is not listed")
}
