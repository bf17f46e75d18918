package node

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/audit"
	"cri-mini/internal/enclosure"
	"cri-mini/internal/testtool"
	"cri-mini/runtime/wire"
)

// gc is what the command says, as a program reads it.
func (d *daemon) gc(flags ...string) audit.Report {
	d.t.Helper()
	out, _ := d.run(append([]string{"gc", "--json", "--root", d.root(), "--state", filepath.Join(d.state, "state")}, flags...)...)
	var report audit.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		d.t.Fatalf("gc %s: %v\n%s", flags, err, out)
	}
	return report
}

// keys lists what a report says of things, but for those of others.
func keys(r audit.Report, about string) []string {
	var list []string
	for _, f := range r.Findings {
		if f.About == about {
			list = append(list, f.Kind+" "+f.Name)
		}
	}
	slices.Sort(list)
	return list
}

// litter leaves one of each thing that a daemon could lose, and gives what an audit
// has to call them.
func (d *daemon) litter(letter string) (made []string) {
	d.t.Helper()
	id := strings.Repeat(letter, 64)
	add := func(kind, name string) { made = append(made, kind+" "+name) }
	folder := func(path string) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			d.t.Fatal(err)
		}
	}
	file := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	group := "/" + filepath.Base(d.cgroupParent()) + "/" + id
	folder(enclosure.CgroupRoot + group)
	mark := readFile(d.t, filepath.Join(d.state, "state/instance"))
	if err := unix.Setxattr(enclosure.CgroupRoot+group, "trusted.cri-mini", []byte(mark), 0); err != nil {
		d.t.Fatal(err)
	}
	add("control group", group)

	writable := filepath.Join(d.root(), "containers", id)
	folder(filepath.Join(writable, "upper/m"))
	file(filepath.Join(writable, "upper/f"), "x")
	add("writable layer", writable)
	mount := filepath.Join(writable, "upper/m")
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, ""); err != nil {
		d.t.Fatal(err)
	}
	add("mount", mount)

	for dir, kind := range map[string]string{"tasks": "note of a task", "exits": "exit record"} {
		name := filepath.Join(d.state, "state", dir, id)
		file(name, "")
		add(kind, name)
	}
	lease := filepath.Join(d.root(), "network/pods", id+".json")
	file(lease, fmt.Sprintf(`{"ID":%q,"Form":"builtin","Addresses":["10.254.0.9/20"]}`, id))
	add("lease", lease)

	layer := filepath.Join(d.root(), "images/layers/layers/sha256-"+id)
	folder(filepath.Join(layer, "tree"))
	add("layer", layer)

	d.strayPin(id)
	add("namespaces", id)

	port := d.portTag() + "0afe00" + letter + letter
	if out, err := exec.Command(testtool.Need(d.t, "ip", "iproute2"), "link", "add", port, "type", "veth", "peer", "name", "peer-"+letter).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
	add("network device", port)
	add("firewall entry", d.strayHostPort())
	slices.Sort(made)
	return made
}

func (d *daemon) cgroupParent() string {
	d.t.Helper()
	found, _ := filepath.Glob(enclosure.CgroupRoot + "/cri?mini*")
	if len(found) != 1 {
		d.t.Fatalf("groups of the instance: %q, want one", found)
	}
	return found[0]
}

// portTag begins the names of the devices of this instance's pods.
func (d *daemon) portTag() string {
	d.t.Helper()
	entries, _ := os.ReadDir("/sys/class/net")
	for _, e := range entries {
		if tag := regexp.MustCompile("^cm[0-9a-f]{5}").FindString(e.Name()); tag != "" {
			return tag
		}
	}
	d.t.Fatal("no pod has a network device")
	return ""
}

// strayPin has the monitor keep a namespace.
func (d *daemon) strayPin(id string) {
	d.t.Helper()
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer unix.Close(socket)
	namespace, err := os.Open("/proc/self/ns/ipc")
	if err != nil {
		d.t.Fatal(err)
	}
	defer namespace.Close()
	err = unix.Connect(socket, &unix.SockaddrUnix{Name: filepath.Join(d.state, "state/monitor.sock")})
	if err == nil {
		err = wire.Send(socket, (&wire.Request{Verb: wire.Pin, ID: id, Names: []string{"ipc"}}).Encode(), []int{int(namespace.Fd())})
	}
	if err == nil {
		_, _, err = wire.Receive(socket)
	}
	if err != nil {
		d.t.Fatalf("have the monitor keep a namespace: %v", err)
	}
}

// strayHostPort adds an entry to the firewall's map.
func (d *daemon) strayHostPort() string {
	d.t.Helper()
	conn, err := nftables.New()
	if err != nil {
		d.t.Fatal(err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, table := range tables {
		set, err := conn.GetSetByName(table, "ports")
		if !strings.HasPrefix(table.Name, "cri-mini-") || err != nil {
			continue
		}
		element := nftables.SetElement{Key: []byte{unix.IPPROTO_TCP, 0, 0, 0, 0x27, 0x0f, 0, 0}, Val: []byte{10, 254, 0, 1, 0, 80, 0, 0}}
		if err := conn.SetAddElements(set, []nftables.SetElement{element}); err != nil {
			d.t.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			d.t.Fatal(err)
		}
		return fmt.Sprintf("table inet %s: tcp *:9999 to 10.254.0.1:80", table.Name)
	}
	d.t.Fatal("the instance has no table")
	return ""
}

func TestLeftoversAreFoundShownAndRemovedAndRunningPodsAreNotTouched(t *testing.T) {
	d := ready(t, "--cgroup-driver", "cgroupfs") // whose groups the test makes by hand
	p := d.runPod("stays", func(c *criapi.PodSandboxConfig) {
		c.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 8088}}
	})
	c := p.run(containerConfig("app", "sleep", "1000"))
	created := p.create(containerConfig("later", "sleep", "1000"))
	if r := d.gc("--dry-run"); len(r.Findings) > 0 {
		t.Errorf("found on a clean node: %+v", r.Findings)
	}

	foreign := filepath.Join(d.root(), "containers", "somebody's")
	if err := os.MkdirAll(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	made := d.litter("d")
	shown := d.gc("--dry-run")
	if got := keys(shown, audit.Leftover); !slices.Equal(got, made) {
		t.Errorf("gc --dry-run shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(made, "\n"))
	}
	out, err := d.run("doctor", "--root", d.root(), "--state", filepath.Join(d.state, "state"))
	if err == nil {
		t.Error("doctor is content with leftovers")
	}
	for _, thing := range made {
		if kind, name, _ := strings.Cut(thing, " /"); !strings.Contains(out, name) {
			t.Errorf("doctor does not name %s %s:\n%s", kind, name, out)
		}
	}
	if got := keys(d.gc(), audit.Removed); !slices.Equal(got, made) {
		t.Errorf("gc removes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(made, "\n"))
	}
	after := d.gc("--dry-run")
	if got := keys(after, audit.Leftover); len(got) > 0 {
		t.Errorf("still there: %q", got)
	}
	if got := keys(after, audit.Foreign); !slices.Equal(got, []string{"writable layer " + foreign}) {
		t.Errorf("foreign: %q", got)
	}
	if err := os.Remove(foreign); err != nil {
		t.Errorf("what is not ours was not left alone: %v", err)
	}

	if got := c.exec("echo", "alive"); got != "alive\n" {
		t.Errorf("exec in the pod that stays: %q", got)
	}
	created.start()
	d.wholeLife("after")
	p.remove()
}

func TestLeftoversOfAKilledDaemonAreShownWithoutOneAndGoneAfterTheNextStart(t *testing.T) {
	d := ready(t)
	p := d.runPod("stays")
	c := p.run(containerConfig("app", "sleep", "1000"))
	d.kill()
	id := strings.Repeat("e", 64)
	writable, note := filepath.Join(d.root(), "containers", id), filepath.Join(d.state, "state/exits", id)
	if err := os.MkdirAll(filepath.Join(writable, "upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := keys(d.gc("--dry-run"), audit.Leftover), []string{"exit record " + note, "writable layer " + writable}; !slices.Equal(got, want) {
		t.Errorf("gc --dry-run without a daemon: %q, want %q", got, want)
	}
	if out, err := d.run("gc", "--root", d.root(), "--state", filepath.Join(d.state, "state")); err == nil || !strings.Contains(out, "no daemon answers") {
		t.Errorf("gc without a daemon: %v, %s", err, out)
	}
	out, err := d.run("doctor", "--root", d.root(), "--state", filepath.Join(d.state, "state"))
	if err == nil || !strings.Contains(out, "does not answer") || !strings.Contains(out, writable) {
		t.Errorf("doctor without a daemon: %v\n%s", err, out)
	}
	d.serve()
	eventually(t, "the next daemon has removed them", func() bool {
		_, layer := os.Stat(writable)
		_, record := os.Stat(note)
		return os.IsNotExist(layer) && os.IsNotExist(record)
	})
	if got := c.exec("echo", "alive"); got != "alive\n" {
		t.Errorf("exec in the pod that stays: %q", got)
	}
	p.remove()
}

func TestPodsThatComeAndGoKeepTheirThingsWhileLeftoversAreRemoved(t *testing.T) {
	d := ready(t)
	stays := d.runPod("stays")
	stays.run(containerConfig("app", "sleep", "1000"))
	var done atomic.Bool
	var lives atomic.Int64
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for n := 0; !done.Load(); n++ {
				if err := d.oneLife(fmt.Sprintf("w%d-%d", w, n)); err != nil {
					t.Errorf("a pod lost something: %v", err)
					return
				}
				lives.Add(1)
			}
		})
	}
	for i, letter := range []string{"a", "b", "c"} {
		// Something that is really left makes the audit look twice and remove.
		left := filepath.Join(d.root(), "containers", strings.Repeat(letter, 64))
		if err := os.MkdirAll(filepath.Join(left, "upper"), 0o700); err != nil {
			t.Fatal(err)
		}
		report := d.gc()
		if got, want := keys(report, audit.Removed), []string{"writable layer " + left}; !slices.Equal(got, want) {
			t.Errorf("round %d removes %q, want %q", i, got, want)
		}
		for _, f := range report.Findings {
			if f.About != audit.Removed {
				t.Errorf("round %d finds %+v", i, f)
			}
		}
	}
	for end := time.Now().Add(patience); lives.Load() < 8 && time.Now().Before(end) && !t.Failed(); time.Sleep(10 * time.Millisecond) {
	}
	done.Store(true)
	workers.Wait()
	t.Logf("%d pods came and went", lives.Load())
	stays.remove()
}

func TestDoctorFindsAnAddressConflictForwardingOffAndABadRegistry(t *testing.T) {
	d := ready(t)
	d.wholeLife("first") // makes the bridge
	doctor := func() string {
		out, _ := d.run("doctor", "--root", d.root(), "--state", filepath.Join(d.state, "state"), "--registry-config-dir", d.certs())
		return out
	}
	signs := []string{"which overlaps", "does not forward", "bad.test/hosts.toml"}
	before := doctor()
	for _, sign := range append(signs, "another version") {
		if strings.Contains(before, sign) {
			t.Errorf("doctor says %q of a node without that:\n%s", sign, before)
		}
	}
	var kept struct{ Subnets []string }
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(d.root(), "network/subnets.json"))), &kept); err != nil || len(kept.Subnets) == 0 {
		t.Fatalf("subnets: %v, %v", kept, err)
	}
	ip := func(args ...string) {
		if out, err := exec.Command(testtool.Need(t, "ip", "iproute2"), args...).CombinedOutput(); err != nil {
			t.Errorf("ip %q: %v: %s", args, err, out)
		}
	}
	ip("link", "add", "other", "type", "bridge")
	ip("link", "set", "other", "up")
	ip("route", "add", kept.Subnets[0], "dev", "other", "metric", "5")
	const forward = "/proc/sys/net/ipv4/ip_forward"
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write(forward, "0")
	if err := os.Mkdir(filepath.Join(d.certs(), "bad.test"), 0o755); err != nil {
		t.Error(err)
	}
	write(filepath.Join(d.certs(), "bad.test/hosts.toml"), "server = 3")
	after := doctor()
	ip("link", "del", "other")
	write(forward, "1")
	for _, sign := range signs {
		if !strings.Contains(after, sign) {
			t.Errorf("doctor does not say %q:\n%s", sign, after)
		}
	}
}

func TestWhySaysWhoEndedAContainerAcrossAKillOfTheDaemon(t *testing.T) {
	d := ready(t)
	p := d.runPod("asked")
	c := p.run(containerConfig("app", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
	c.stop(1)
	eventually(t, "the history is written", func() bool {
		return strings.Contains(readFile(t, filepath.Join(d.state, "state/history")), `"What":"stop container"`)
	})
	time.Sleep(200 * time.Millisecond) // the end of it, too
	d.restart()
	me := fmt.Sprintf("%s[%d]", strings.TrimSpace(readFile(t, "/proc/self/comm")), os.Getpid())
	for _, word := range []string{"app", c.id[:12]} {
		out, err := d.run("why", word)
		for _, want := range []string{"exited", "SIGKILL ended it", "StopContainer of " + me, "waiting up to 1s for its end after the stop signal"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("why %s does not say %q: %v\n%s", word, want, err, out)
			}
		}
	}
	p.remove()
	if out, err := d.run("why", "default/asked"); err != nil || !strings.Contains(out, "gone") || !strings.Contains(out, "RemovePodSandbox of "+me) {
		t.Errorf("why of a pod that is gone: %v\n%s", err, out)
	}
	if out, err := d.run("why", "nothing"); err == nil || !strings.Contains(out, "not remembered") {
		t.Errorf("why of nothing: %v\n%s", err, out)
	}
}
