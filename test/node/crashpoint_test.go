package node

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/testregistry"
	"cri-mini/internal/testtool"
)

var (
	crashRounds = flag.Int("crash-rounds", 1, "how often each crash point kills, at least; from 2 on in turns in the steps that pass it, and the next daemon dies too")
	crashPoint  = flag.String("crash-point", "", "only crash points whose names begin so")
)

// crash is one point in one step, and how often the step passes it.
type crash struct {
	step  int
	point string
	times int
}

// afterwards is the step behind the last: the death of the monitor, and of
// the daemon while it puts another one in its place.
var afterwards = len(steps)

// handover is what a monitor does that takes over.
var handover = []string{"monitor.asked", "monitor.done", "monitor.answered"}

// TestKilledAtAnyCrashPointLosesAndLeavesNothing kills daemon or monitor at
// each point of package crashpoint, in a life of a pod beside others.
func TestKilledAtAnyCrashPointLosesAndLeavesNothing(t *testing.T) {
	kills := map[string]int{}
	for _, network := range []string{"builtin", "cni"} {
		t.Run(network, func(t *testing.T) {
			c := newCrashes(t, network, kills)
			c.find()
			// Late times of a point, in a step, may not come.
			for n := 0; n < 2*(*crashRounds) && len(c.missing()) > 0; n++ {
				c.round(n)
			}
			c.replacements()
			c.end()
		})
	}
	if t.Failed() {
		return
	}
	for _, point := range crashpoint.Points {
		if kills[point] < *crashRounds && strings.HasPrefix(point, *crashPoint) {
			t.Errorf("point %s was reached %d times, want %d", point, kills[point], *crashRounds)
		}
	}
}

// crashes is the test with one kind of network.
type crashes struct {
	*story
	t       *testing.T
	mine    func(point string) bool
	kills   map[string]int
	found   []crash
	turns   map[crash]int // how often it was its turn
	check   func()
	lost    int // bystanders that nobody could have kept
	began   time.Time
	at      string  // the last kill
	seconds int     // how many second points were chosen
	total   *beside // sums of those before
}

func newCrashes(t *testing.T, network string, kills map[string]int) *crashes {
	points := t.TempDir()
	flags := []string{"--crash-points", points}
	var d *daemon
	if network == "cni" {
		d = startSlow(t, flags...).daemon
	} else {
		d = ready(t, flags...)
	}
	cni := network == "cni"
	registry(t).Push("crash", "1", busybox(t, testregistry.Layer{Files: []testregistry.File{{Name: "one", Data: "1"}, {Name: "two", Data: "2"}}}))
	c := &crashes{t: t, kills: kills, turns: map[crash]int{}, began: time.Now(), total: &beside{},
		mine: func(point string) bool {
			return strings.HasPrefix(point, *crashPoint) && strings.HasPrefix(point, "cni.") == cni
		},
		story: &story{d: d, points: points, beside: d.startBeside(), build: testtool.OtherBuild(t, d.program())}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last: %s", c.at)
		}
	})
	if *crashRounds > 1 {
		c.again = c.nextSecond
	}
	c.settleBeside()
	c.passUndisturbed() // makes what stays
	d.restart()         // and a daemon that has learned of all that runs
	c.check = c.unchangedBeside()
	return c
}

// nextSecond goes through the points of the daemon. Most are passed by the call
// that is made again, or by what a daemon that comes up takes back.
func (c *crashes) nextSecond() string {
	for {
		point := crashpoint.Points[c.seconds%len(crashpoint.Points)]
		if c.seconds++; !strings.HasPrefix(point, "monitor.") {
			return point
		}
	}
}

// settleBeside has bystanders be like those that outlived a monitor: that holds
// less of a process that it adopted.
func (c *crashes) settleBeside() {
	c.d.killMonitor()
	c.monitors++
	c.beside.unharmed(1)
}

// unchangedBeside is unchanged with what a pod with an init makes.
func (c *crashes) unchangedBeside() (check func()) {
	c.d.sharedLife()
	plain := c.d.unchanged()
	return func() {
		c.d.sharedLife()
		plain()
	}
}

func (c *crashes) passUndisturbed() {
	c.t.Helper()
	for _, step := range steps {
		c.begin("", 0)
		if err := step.do(c.story); err != nil {
			c.t.Fatalf("%s: %v", step.name, err)
		}
	}
}

// find learns which points each step passes: those that it passes twice out of
// two times.
func (c *crashes) find() {
	c.t.Helper()
	first, second := c.trace(), c.trace()
	for step := range first {
		for _, point := range crashpoint.Points {
			times := min(first[step][point], second[step][point])
			if times == 0 || !c.mine(point) || strings.HasPrefix(point, "monitor.output") && steps[min(step, afterwards-1)].name != "exec" ||
				upgrades(step) && !strings.HasPrefix(point, "upgrade.") && !slices.Contains(ownUpgrade, point) ||
				step == afterwards && !strings.HasPrefix(point, "replace.") && !slices.Contains(handover, point) {
				continue
			}
			c.found = append(c.found, crash{step, point, times})
		}
	}
}

// ownUpgrade is what a monitor passes when it executes another program. All else
// in that step is as in a restart.
var ownUpgrade = []string{"monitor.handover-written", "monitor.executed", "monitor.taken-over"}

func upgrades(step int) bool { return step != afterwards && steps[step].name == "upgrade" }

// missing are the points that have not killed often enough.
func (c *crashes) missing() (points []string) {
	for _, x := range c.found {
		if !x.both() && c.kills[x.point] < *crashRounds && !slices.Contains(points, x.point) {
			points = append(points, x.point)
		}
	}
	return points
}

// choose gives each step its points for a round: each point once, in another of
// its steps than the round before, and at first so that the steps have alike.
func (c *crashes) choose(round int) [][]crash {
	where := map[string][]crash{}
	for _, x := range c.found {
		if !x.both() {
			where[x.point] = append(where[x.point], x)
		}
	}
	queues := make([][]crash, len(steps))
	for _, point := range c.missing() {
		in := where[point]
		x := in[round%len(in)]
		if round == 0 {
			x = slices.MinFunc(in, func(a, b crash) int { return len(queues[a.step]) - len(queues[b.step]) })
		}
		queues[x.step] = append(queues[x.step], x)
	}
	return queues
}

// trace goes through the story and notes the points of each step.
func (c *crashes) trace() []map[string]int {
	c.t.Helper()
	path := filepath.Join(c.points, crashpoint.Trace)
	all := make([]map[string]int, len(steps)+1)
	for i := range all {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			c.t.Fatal(err)
		}
		c.begin("", 0)
		if i == afterwards {
			c.killMonitor()
			c.beside.unharmed(1)
		} else if err := steps[i].do(c.story); err != nil {
			c.t.Fatalf("%s: %v", steps[i].name, err)
		}
		all[i] = c.passed(path)
	}
	if err := os.Remove(path); err != nil {
		c.t.Fatal(err)
	}
	return all
}

// passed waits until a step is over in the background too.
func (c *crashes) passed(path string) map[string]int {
	c.t.Helper()
	var counts map[string]int
	quiet, sum := 0, 0
	eventually(c.t, "no more points are passed", func() bool {
		counts = map[string]int{}
		for line := range strings.Lines(readFile(c.t, path)) {
			counts[strings.TrimSpace(line)]++
		}
		now := 0
		for point, n := range counts {
			if !strings.HasPrefix(point, "monitor.output") {
				now += n
			}
		}
		if quiet++; now != sum || !c.d.synced() {
			quiet, sum = 0, now
		}
		return quiet > 6
	})
	return counts
}

// round kills at each point, in as many passes through the story as the step with
// most of them needs.
func (c *crashes) round(n int) {
	c.t.Helper()
	queues := c.choose(n)
	passes := 0
	for _, q := range queues {
		passes = max(passes, len(q))
	}
	for pass := range passes {
		for i := range queues {
			var x crash
			if pass < len(queues[i]) {
				x = queues[i][pass]
			}
			if c.killAt(i, x); c.t.Failed() {
				c.t.Fatalf("killed in the step %q at %q", steps[i].name, x.point)
			}
		}
		if c.check(); c.t.Failed() {
			c.t.FailNow()
		}
	}
}

// both tells whether daemon and monitor are dead at the same time: one of them
// dies while it takes over from the other.
func (x crash) both() bool {
	return x.step == afterwards || steps[x.step].name == "restart" && strings.HasPrefix(x.point, "monitor.")
}

// replacements kills the monitor, and the daemon at each point on the way to
// another monitor, or the daemon, and the monitor while the next one comes up.
// That ends bystanders, so there are new ones each time.
func (c *crashes) replacements() {
	c.t.Helper()
	c.leaveBeside(true)
	check := c.unchangedBeside()
	for n := range *crashRounds {
		for _, x := range c.found {
			monitor := strings.HasPrefix(x.point, "monitor.") // which died there often in the steps before
			if !x.both() || monitor && (n%4 > 0 || *crashRounds == 1 && x.point != "monitor.done") {
				continue
			}
			c.beside = c.d.startBeside()
			c.replace(x)
			if check(); c.t.Failed() {
				c.t.Fatalf("killed at %q", x.point)
			}
		}
	}
}

// killAt does one step, with a death at a point unless it is none, and does it
// again until nothing dies any more.
func (c *crashes) killAt(step int, x crash) {
	c.t.Helper()
	n := 1
	if x.point != "" {
		n += c.turns[x] % x.times
		c.turns[x]++
	}
	c.begin(x.point, n)
	c.at = fmt.Sprintf("step %q, point %q, time %d", steps[step].name, x.point, n)
	for {
		deaths := c.daemons + c.monitors
		err := steps[step].do(c.story)
		c.settle(n == 1)
		died := c.daemons + c.monitors - deaths
		// Of a death behind the answer, a look at what became of it may hear.
		if err != nil && (died == 0 || !strings.Contains(err.Error(), "Unavailable")) {
			c.t.Errorf("%v", err)
		}
		if died == 0 || c.t.Failed() {
			break
		}
		c.beside.unharmed(0)
	}
	if c.cut {
		c.kills[x.point]++
	}
}

// settle waits for a point that is reached behind the answer of a call. Later
// times, those in the background, and those of a second death may not come.
func (c *crashes) settle(sure bool) {
	c.t.Helper()
	for c.armed != "" {
		wait := 3 * time.Second
		switch {
		case c.second:
			wait = 0
		case sure && *crashRounds == 1:
			wait = patience
		}
		for end := time.Now().Add(wait); time.Now().Before(end) && !c.fired(); time.Sleep(5 * time.Millisecond) {
		}
		if c.disarm() {
			return
		}
		c.revive()
	}
}

func (c *crashes) killMonitor() {
	c.t.Helper()
	c.d.killMonitor()
	c.monitors++
}

// replace kills one of the two, and the other while it hands over what it has.
// What it has not handed over by then nobody has.
func (c *crashes) replace(x crash) {
	c.t.Helper()
	n := 1 + c.turns[x]%x.times
	c.turns[x]++
	c.begin(x.point, n)
	c.at = fmt.Sprintf("replacement, point %q, time %d", x.point, n)
	if x.step != afterwards {
		c.d.restart()
	} else if err := syscall.Kill(c.old, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	c.monitors++
	for end := time.Now().Add(patience); time.Now().Before(end) && !c.fired(); time.Sleep(5 * time.Millisecond) {
	}
	if c.disarm() {
		c.t.Fatalf("point %s was not passed %d times by the replacement of the monitor", x.point, n)
	}
	c.armed = ""
	c.kills[x.point]++
	switch {
	case x.step != afterwards:
	case strings.HasPrefix(x.point, "monitor."): // the new one, and there is a third
		c.monitors++
		eventually(c.t, "a monitor that holds all", c.next)
		c.beside.unharmed(2)
		c.leaveBeside(true)
		return
	default:
		c.buryDaemon()
		c.d.serve()
	}
	lost := c.beside.accounted()
	if lost && x.point == "replace.handed-over" {
		c.t.Errorf("bystanders were lost although the monitor had all")
	}
	if !lost {
		c.beside.unharmed(1)
	}
	c.leaveBeside(!lost)
}

// leaveBeside ends the bystanders.
func (c *crashes) leaveBeside(whole bool) {
	c.t.Helper()
	if !whole {
		c.lost += len(c.beside.all)
	}
	c.beside.end(whole)
	c.total.lines, c.total.missing, c.total.torn = c.total.lines+c.beside.lines, c.total.missing+c.beside.missing, c.total.torn+c.beside.torn
}

func (c *crashes) end() {
	c.t.Helper()
	sum, points := 0, 0
	for point, n := range c.kills {
		if c.mine(point) {
			sum, points = sum+n, points+1
		}
	}
	c.t.Logf("%d points, %d kills at them in %s: %d deaths of the daemon, %d of the monitor; lost 0, leaked 0; %s; %d of them ended because daemon and monitor died together",
		points, sum, time.Since(c.began).Round(time.Second), c.daemons, c.monitors, c.total, c.lost)
}
