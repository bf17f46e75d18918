package node

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"cri-mini/internal/enclosure"
)

// census is how many there are of each thing: mounts, namespaces, cgroups,
// processes, network devices, elements of the firewall, and of the given nodes
// also descriptors and files.
type census map[string]int

func count(t *testing.T, nodes ...*daemon) census {
	t.Helper()
	c := census{}
	c.mounts("host", "self")
	c.processes()
	c.groups()
	c.devices()
	c.firewall(t)
	for _, d := range nodes {
		conversations := d.conversations()
		monitor := d.monitor()
		for role, pid := range map[string]int{"daemon": d.pid(), "monitor": monitor} {
			c.mounts(role, strconv.Itoa(pid))
			c.descriptors(role, pid, monitor)
			c["descriptor of "+role+" socket:[N]"] -= conversations
		}
		c.files(t, d.root())
		c.files(t, filepath.Join(d.state, "state"))
	}
	return c
}

// unchanged counts now and gives what makes sure that the node still works,
// counts again and compares. A whole life comes before each count because of
// what a daemon learns with its first container and keeps.
func (d *daemon) unchanged() (check func()) {
	d.t.Helper()
	d.wholeLife("before")
	// What pods did before is still being freed, and pulled layers are still
	// being synced.
	var before census
	eventually(d.t, "nothing changes any more", func() bool {
		earlier, synced := before, d.synced()
		before = count(d.t, d)
		time.Sleep(100 * time.Millisecond)
		return synced && maps.Equal(earlier, before)
	})
	return func() {
		d.t.Helper()
		d.wholeLife("after")
		before.compare(d.t, "afterwards", func() census { return count(d.t, d) })
	}
}

// synced tells whether all layers have been written to disk, which happens
// behind the scenes.
func (d *daemon) synced() bool {
	layers, _ := filepath.Glob(filepath.Join(d.root(), "images/layers/layers/*"))
	synced, _ := filepath.Glob(filepath.Join(d.root(), "images/layers/layers/*/synced"))
	return len(layers) == len(synced)
}

// compare waits a little: the kernel frees namespaces and their devices after
// the last close.
func (c census) compare(t *testing.T, when string, again func() census) {
	t.Helper()
	var differ []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		now := again()
		differ = nil
		for thing := range maps.Keys(now) {
			if _, known := c[thing]; !known {
				differ = append(differ, fmt.Sprintf("%s: 0 before, %d now", thing, now[thing]))
			}
		}
		for thing, n := range c {
			if now[thing] != n {
				differ = append(differ, fmt.Sprintf("%s: %d before, %d now", thing, n, now[thing]))
			}
		}
		if len(differ) == 0 {
			return
		}
	}
	slices.Sort(differ)
	t.Errorf("%s not the same is there as before:\n  %s", when, strings.Join(differ, "\n  "))
}

func (c census) mounts(role, pid string) {
	table, _ := os.ReadFile("/proc/" + pid + "/mountinfo")
	for _, line := range bytes.Split(table, []byte("\n")) {
		if fields := strings.Fields(string(line)); len(fields) > 4 {
			c["mount of "+role+" "+fields[4]]++
		}
	}
}

var number = regexp.MustCompile(`\d+`)

// processes counts all there are and the namespaces that they are in, hold
// open or have mounted.
func (c census) processes() {
	namespaces := map[string]bool{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		stat, err := os.ReadFile(p + "/stat")
		if err != nil {
			continue // has just ended
		}
		_, rest, _ := strings.Cut(string(stat), "(")
		name, rest, _ := strings.Cut(rest, ") ")
		if strings.Fields(rest)[1] == "2" || name == "kthreadd" {
			continue // the kernel's, where no enclosure hides them
		}
		c["process "+name+map[bool]string{true: " (zombie)"}[rest[0] == 'Z']]++
		links, _ := filepath.Glob(p + "/ns/*")
		open, _ := filepath.Glob(p + "/fd/*")
		// Threads of ours may be elsewhere; not counted is where they wait for
		// the next container to start, for they stay as many as were needed.
		threads, _ := filepath.Glob(p + "/task/*/ns/net")
		for _, link := range slices.Concat(links, open, threads) {
			target, _ := os.Readlink(link)
			kind, _, found := strings.Cut(target, ":[")
			if found && !strings.Contains(" pipe socket anon_inode ", " "+kind+" ") {
				namespaces[target] = true
			}
		}
		table, _ := os.ReadFile(p + "/mountinfo")
		for line := range strings.Lines(string(table)) {
			if fields := strings.Fields(line); len(fields) > 4 && strings.Contains(fields[3], ":[") {
				namespaces[fields[3]] = true
			}
		}
	}
	for ns := range namespaces {
		kind, _, _ := strings.Cut(ns, ":")
		c["namespace "+kind]++
	}
}

func (c census) groups() {
	_ = filepath.WalkDir(enclosure.CgroupRoot, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			c["cgroup "+path]++
		}
		return nil
	})
}

func (c census) devices() {
	entries, _ := os.ReadDir("/sys/class/net")
	for _, e := range entries {
		c["network device "+e.Name()]++
		if master, err := os.Readlink("/sys/class/net/" + e.Name() + "/master"); err == nil {
			c["port of bridge "+filepath.Base(master)]++
		}
	}
}

func (c census) firewall(t *testing.T) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		name := fmt.Sprintf("nft table %s %d", table.Name, table.Family)
		c[name]++
		sets, err := conn.GetSets(table)
		if err != nil {
			continue // the table has just gone
		}
		for _, set := range sets {
			elements, _ := conn.GetSetElements(set)
			c[name+" set "+set.Name] += len(elements)
		}
	}
	chains, _ := conn.ListChains()
	for _, chain := range chains {
		rules, _ := conn.GetRules(chain.Table, chain)
		c["nft rules of chain "+chain.Table.Name+" "+chain.Name] += len(rules)
	}
}

// descriptors counts those of a process by what they lead to. No leak are a
// connection that is kept for the next question to the registry, and what a
// daemon that is the parent of its monitor has to wait for it.
func (c census) descriptors(role string, pid, monitor int) {
	idle := toRegistry(pid)
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		target, err := os.Readlink(link)
		if target == "anon_inode:[pidfd]" {
			info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, filepath.Base(link)))
			if strings.Contains(string(info), fmt.Sprintf("\nPid:\t%d\n", monitor)) {
				continue
			}
		}
		if err == nil && !idle[target] {
			c["descriptor of "+role+" "+number.ReplaceAllString(target, "N")]++
		}
	}
}

// toRegistry lists sockets connected to a registry of this test.
func toRegistry(pid int) map[string]bool {
	found := map[string]bool{}
	table, err := os.Open(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return found
	}
	defer table.Close()
	for rows := bufio.NewScanner(table); rows.Scan(); {
		fields := strings.Fields(rows.Text())
		if len(fields) < 10 || !strings.Contains(fields[2], ":") {
			continue
		}
		port, err := strconv.ParseInt(fields[2][strings.Index(fields[2], ":")+1:], 16, 32)
		if err == nil && isRegistry(int(port)) {
			found["socket:["+fields[9]+"]"] = true
		}
	}
	return found
}

// conversations is how many connections the daemon has with its monitor. Some
// are kept for the next request: how many depends on how many there were at
// the same time.
func (d *daemon) conversations() int {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		d.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		const connected = "03"
		// The monitor's ends have the name; those of the daemon have none.
		if len(fields) == 8 && fields[5] == connected && strings.HasSuffix(fields[7], "/monitor.sock") && d.hasSocket(d.monitor(), fields[6]) {
			n++
		}
	}
	return n
}

func (d *daemon) hasSocket(pid int, inode string) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return slices.ContainsFunc(links, func(link string) bool {
		target, _ := os.Readlink(link)
		return target == "socket:["+inode+"]"
	})
}

func (c census) files(t *testing.T, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			c["file "+path]++
		}
		return nil
	})
}

// resident is the private memory of a process in kB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "Private_") {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
