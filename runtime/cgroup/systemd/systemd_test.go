package systemd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	scope = "cri-mini-c1.scope"
	group = "/pods.slice/" + scope
)

// own ends the keeper of a scope when the test ends: there is no systemd to.
func own(t *testing.T, b *bus) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.root, group, "keeper/cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	fmt.Sscan(string(text), &pid)
	t.Cleanup(func() { unix.Kill(pid, unix.SIGKILL) })
	return pid
}

func TestScopeIsMadeInItsSliceAroundAKeeper(t *testing.T) {
	b := newBus(t)
	m := b.open()
	if err := m.Make(t.Context(), group, nil); err != nil {
		t.Fatal(err)
	}
	pid := own(t, b)
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("keeper %d: %v", pid, err)
	}
	if got := b.told(); got != "start "+scope {
		t.Errorf("calls: %s", got)
	}
	set := map[string]any{}
	for _, p := range b.units[scope] {
		set[p.Name] = p.Value.Value()
	}
	for name, want := range map[string]any{"Slice": "pods.slice", "Delegate": true, "CollectMode": "inactive-or-failed", "TasksMax": uint64(math.MaxUint64)} {
		if set[name] != want {
			t.Errorf("%s is %v, want %v", name, set[name], want)
		}
	}
	if got := fmt.Sprint(set["PIDs"]); got != fmt.Sprintf("[%d]", pid) {
		t.Errorf("PIDs %s, want that of the keeper, %d", got, pid)
	}
}

func TestSharesAreTheScopesOwnAndFollowAnUpdate(t *testing.T) {
	b := newBus(t)
	m := b.open()
	if err := m.Make(t.Context(), group, Shares{"cpu.weight": "17", "memory.min": "max", "memory.max": "4096"}); err != nil {
		t.Fatal(err)
	}
	own(t, b)
	b.told()
	check := func(want map[string]uint64) {
		t.Helper()
		b.mu.Lock()
		defer b.mu.Unlock()
		set := map[string]uint64{}
		for _, p := range b.units[scope] {
			if n, ok := p.Value.Value().(uint64); ok && p.Name != "TasksMax" {
				set[p.Name] = n
			}
		}
		if !maps.Equal(set, want) {
			t.Errorf("set: %v, want %v", set, want)
		}
	}
	check(map[string]uint64{"CPUWeight": 17, "MemoryMin": math.MaxUint64})
	for _, s := range []Shares{{"cpu.weight": "1", "cpu.idle": "1"}, {"cpu.max": "max"}, {"io.weight": "default 50"}} {
		if err := m.Share(t.Context(), group, s); err != nil {
			t.Fatal(err)
		}
	}
	check(map[string]uint64{"CPUWeight": 0, "MemoryMin": math.MaxUint64, "IOWeight": 50})
	if got := b.told(); got != "set "+scope+", set "+scope {
		t.Errorf("calls: %s", got)
	}
	if err := m.Share(t.Context(), group, Shares{"cpu.weight": "much"}); err == nil || !strings.Contains(err.Error(), `cpu.weight "much"`) {
		t.Errorf("error %v, want file and value in it", err)
	}
}

func TestScopeThatIsThereIsUsedAgain(t *testing.T) {
	b := newBus(t)
	m := b.open()
	if err := os.MkdirAll(b.root+group, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.root+group+"/cgroup.events", []byte("populated 1\nfrozen 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.Make(t.Context(), group, nil); err != nil {
		t.Fatal(err)
	}
	if got := b.told(); got != "" {
		t.Errorf("calls: %s", got)
	}
}

func TestNameThatIsTakenIsFreedFirst(t *testing.T) {
	b := newBus(t)
	m := b.open()
	b.units[scope] = nil
	if err := m.Make(t.Context(), group, nil); err != nil {
		t.Fatal(err)
	}
	own(t, b)
	want := strings.ReplaceAll("start X, stop X, reset X, start X", "X", scope)
	if got := b.told(); got != want {
		t.Errorf("calls: %s, want %s", got, want)
	}
}

func TestScopeThatCannotBeLeavesNothing(t *testing.T) {
	for name, spoil := range map[string]func(*bus){
		`the job ended as "failed"`:                            func(b *bus) { b.result = "failed" },
		"systemd did not make the scope where its slice is":    func(b *bus) { b.away = true },
		"StartTransientUnit of " + scope + ": no answer: slow": func(b *bus) { b.silent = true },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			m := b.open()
			spoil(b)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("slow"))
			defer cancel()
			err := m.Make(ctx, group, nil)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want %q in it", err, name)
			}
			// That no keeper stays is seen by the leak check.
		})
	}
}

func TestLostConnectionComesBack(t *testing.T) {
	b := newBus(t)
	m := b.open()
	b.hangUp()
	if err := m.Make(t.Context(), group, nil); err != nil {
		t.Fatal(err)
	}
	own(t, b)
	b.told()
	b.lose = 1 // the job is done, but nobody is told
	if err := m.Forget(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	if b.has(scope) {
		t.Error("the scope is still there")
	}
	if got := b.told(); got != strings.ReplaceAll("stop X, stop X", "X", scope) {
		t.Errorf("calls: %s", got)
	}
}

func TestStartThatWasCarriedOutUnheardIsMadeAgain(t *testing.T) {
	b := newBus(t)
	m := b.open()
	b.lose = 1
	if err := m.Make(t.Context(), group, nil); err != nil {
		t.Fatal(err)
	}
	own(t, b)
	if !b.has(scope) {
		t.Error("there is no scope")
	}
}

func TestScopeThatIsGoneNeedNotBeForgotten(t *testing.T) {
	b := newBus(t)
	if err := b.open().Forget(t.Context(), group); err != nil {
		t.Error(err)
	}
}

func TestBusThatIsNotThereIsAnError(t *testing.T) {
	_, err := Open(t.Context(), "unix:path=/nonexistent/bus", "/")
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/bus") {
		t.Errorf("error %v, want the address in it", err)
	}
}

func TestBusThatSaysNothingIsGivenUp(t *testing.T) {
	b := newBus(t)
	b.mu.Lock() // it accepts, and then waits
	defer b.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if m, err := Open(ctx, b.address, b.root); err == nil {
		m.Close()
		t.Error("opened")
	}
}

func TestKeeperStaysOnlyWhenTold(t *testing.T) {
	var p program
	defer p.close()
	k, err := p.start()
	if err != nil {
		t.Fatal(err)
	}
	k.pipe.Close() // as our death would
	select {
	case <-k.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it stays though nobody told it")
	}

	if k, err = p.start(); err != nil {
		t.Fatal(err)
	}
	if err := k.stay(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.ended:
		t.Fatal("it ended though it was told to stay")
	case <-time.After(200 * time.Millisecond):
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", k.pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	fmt.Sscan(string(text), &size, &resident)
	if resident > 4 {
		t.Errorf("it takes %d pages", resident)
	}
	unix.Kill(k.pid, unix.SIGKILL)
	<-k.ended
}

func TestInsideOfAGroup(t *testing.T) {
	for path, want := range map[string]string{
		"/kubepods/pod1/c1":            "/kubepods/pod1/c1",
		group:                          group + "/container",
		"/pods.slice/docker-c1.scope":  "/pods.slice/docker-c1.scope",
		"/cri-mini/cri-mini-c1.scope2": "/cri-mini/cri-mini-c1.scope2",
	} {
		if got := Inside(path); got != want {
			t.Errorf("inside of %s: %s, want %s", path, got, want)
		}
	}
}
