package node

import (
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var graphFile = flag.String("graph", "", "`file` for what the test of waves has counted, as CSV; a plot of the memory is put beside it as SVG")

// graph is how much there was of each thing after so many pods.
type graph struct {
	d     *daemon
	begun time.Time
	looks []look
}

type look struct {
	pods  int
	after time.Duration
	of    map[string]int
}

// columns are the columns, in this order. What memory the kernel itself has is
// that of the whole machine: it is shown and not judged.
var columns = slices.Concat(memories, []string{
	"daemon pss kB", "daemon rss kB", "monitor pss kB", "monitor rss kB",
	"daemon threads", "monitor threads",
}, things, []string{"kernel mounts", "kernel network namespaces", "kernel slab kB"})

// memories may grow by noise; things may not grow at all.
var (
	memories = []string{"daemon memory kB", "monitor memory kB"}
	// fewLooks is what may come over 750 pods; a few kB for each would show.
	fewLooks = map[string]float64{"daemon memory kB": 8 << 10, "monitor memory kB": 1 << 10}
	things   = []string{"daemon descriptors", "monitor descriptors", "processes", "namespaces", "mounts", "cgroups", "network devices", "firewall", "bridge addresses", "files"}
)

func (d *daemon) newGraph() *graph {
	g := &graph{d: d, begun: time.Now()}
	g.look(0)
	return g
}

// look waits a little for what the kernel is still taking away. Of the long form
// only each fifth wave is noted.
func (g *graph) look(pods int) {
	g.d.t.Helper()
	if *waves > 100 && pods%250 != 0 {
		return
	}
	l := look{pods: pods, after: time.Since(g.begun)}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		l.of = g.d.amounts()
		if len(g.looks) == 0 || time.Now().After(end) || !slices.ContainsFunc(things, func(name string) bool { return l.of[name] > g.looks[0].of[name] }) {
			break
		}
	}
	g.looks = append(g.looks, l)
}

// amounts counts everything.
func (d *daemon) amounts() map[string]int {
	d.t.Helper()
	of := map[string]int{}
	for role, pid := range map[string]int{"daemon": d.pid(), "monitor": d.monitor()} {
		memory := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		of[role+" memory kB"] = numberAfter(d.t, memory, "Anonymous:")
		of[role+" pss kB"] = numberAfter(d.t, memory, "Pss:")
		of[role+" rss kB"] = numberAfter(d.t, memory, "Rss:")
		of[role+" threads"] = numberAfter(d.t, fmt.Sprintf("/proc/%d/status", pid), "Threads:")
	}
	for thing, n := range count(d.t, d) {
		for prefix, name := range map[string]string{
			"descriptor of daemon ": "daemon descriptors", "descriptor of monitor ": "monitor descriptors", "process ": "processes", "namespace ": "namespaces",
			"mount ": "mounts", "cgroup ": "cgroups", "network device ": "network devices", "nft ": "firewall", "file ": "files",
		} {
			if strings.HasPrefix(thing, prefix) {
				of[name] += n
			}
		}
	}
	tables, _ := filepath.Glob("/sys/class/net/*/brforward")
	for _, name := range tables {
		const entry = 16 // struct __fdb_entry of linux/if_bridge.h
		of["bridge addresses"] += len(readFile(d.t, name)) / entry
	}
	of["kernel mounts"] = numberAfter(d.t, "/proc/slabinfo", "mnt_cache")
	of["kernel network namespaces"] = numberAfter(d.t, "/proc/slabinfo", "net_namespace")
	of["kernel slab kB"] = numberAfter(d.t, "/proc/meminfo", "Slab:")
	return of
}

// numberAfter is the one after a word at the beginning of a line.
func numberAfter(t *testing.T, file, word string) int {
	t.Helper()
	for line := range strings.Lines(readFile(t, file)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == word {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			return n
		}
	}
	t.Fatalf("%s: no %s", file, word)
	return 0
}

// flat judges the second half of the looks: by then buffers and pools have their
// size, and the history its bound.
func (g *graph) flat() {
	t := g.d.t
	t.Helper()
	if *graphFile != "" {
		if err := g.write(*graphFile); err != nil {
			t.Error(err)
		}
	}
	late := g.looks[len(g.looks)/2:]
	for _, name := range memories {
		from, slack := late[0], 512.0 // kB, and a tenth
		first, growth := fit(late, name)
		slack += first / 10
		if len(late) < 20 { // too few for a line: a collection of garbage more or less
			from = g.looks[len(g.looks)/4]
			first, growth = float64(from.of[name]), float64(late[len(late)-1].of[name]-from.of[name])
			slack = fewLooks[name]
		}
		t.Logf("%s: %.0f after %d pods, %+.0f in the %d after them", name, first, from.pods, growth, late[len(late)-1].pods-from.pods)
		if growth > slack {
			t.Errorf("%s: grows from %.0f by %.0f", name, first, growth)
		}
	}
	for _, name := range append(slices.Clone(things), "daemon threads", "monitor threads") {
		most := 0
		for _, l := range g.looks[:len(g.looks)/2] {
			most = max(most, l.of[name])
		}
		if strings.HasSuffix(name, "threads") {
			most += 8 // as many as ever were needed at the same time
		}
		for _, l := range late {
			if l.of[name] > most {
				t.Errorf("%s: %d after %d pods, never more than %d before", name, l.of[name], l.pods, most)
				break
			}
		}
	}
}

// fit is the line through the looks: where it begins, and how much higher it ends.
func fit(looks []look, name string) (first, growth float64) {
	var n, x, y, xx, xy float64
	for _, l := range looks {
		p, v := float64(l.pods-looks[0].pods), float64(l.of[name])
		n, x, y, xx, xy = n+1, x+p, y+v, xx+p*p, xy+p*v
	}
	slope := (n*xy - x*y) / (n*xx - x*x)
	return (y - slope*x) / n, slope * float64(looks[len(looks)-1].pods-looks[0].pods)
}

func (g *graph) write(path string) error {
	var table bytes.Buffer
	w := csv.NewWriter(&table)
	w.Write(append([]string{"pods", "seconds"}, columns...))
	for _, l := range g.looks {
		row := []string{fmt.Sprint(l.pods), fmt.Sprintf("%.1f", l.after.Seconds())}
		for _, name := range columns {
			row = append(row, fmt.Sprint(l.of[name]))
		}
		w.Write(row)
	}
	if w.Flush(); w.Error() != nil {
		return w.Error()
	}
	const mode fs.FileMode = 0o644
	if err := os.WriteFile(path, table.Bytes(), mode); err != nil {
		return err
	}
	return os.WriteFile(strings.TrimSuffix(path, ".csv")+".svg", []byte(g.plot()), mode)
}

// plot draws the memory of both processes.
func (g *graph) plot() string {
	const width, height, left, top, bottom = 760, 320, 60, 20, 40
	pods, most := max(g.looks[len(g.looks)-1].pods, 1), 1
	for _, l := range g.looks {
		for _, name := range memories {
			most = max(most, l.of[name])
		}
	}
	most = (most/4096 + 1) * 4096
	x := func(n int) float64 { return left + float64(n*(width-left-20))/float64(pods) }
	y := func(kB int) float64 { return height - bottom - float64(kB*(height-top-bottom))/float64(most) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for i := range 5 {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ccc"/><text x="%d" y="%.1f" text-anchor="end">%d MiB</text>`+"\n",
			left, y(most*i/4), width-20, left-6, y(most*i/4)+4, most*i/4/1024)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(pods*i/4), height-bottom+16, pods*i/4)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">pods that came and went; memory of their own</text>`+"\n", (left+width)/2, height-6)
	for i, name := range memories {
		colour := []string{"#0a7", "#36c"}[i]
		var points []string
		for _, l := range g.looks {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(l.pods), y(l.of[name])))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colour)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" fill="%s">%s</text>`+"\n", x(0)+4, y(g.looks[0].of[name])-8, colour, strings.Fields(name)[0])
	}
	return b.String() + "</svg>\n"
}
