package podsandbox

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/audit"
)

// endless is a leftover whose removal ends only when it is given up.
func endless() audit.Thing {
	return audit.Thing{Kind: "control group", Name: "busy", Remove: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
}

func TestAuditThatIsGivenUpPutsNothingIntoQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if f := l.pods.judge(ctx, endless(), true, false); f.About != audit.Leftover || len(l.pods.audits.stuck) != 0 {
			t.Errorf("given up: %+v, quarantine %v", f, l.pods.audits.stuck)
		}
	})
}

func TestAuditThatIsGivenUpStopsAtTheThingAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		l.world.change(func() {
			for _, letter := range []string{"d", "e"} {
				id := strings.Repeat(letter, 64)
				l.world.extra = append(l.world.extra, audit.Thing{Kind: "control group", Name: id, Owner: id, Remove: func(ctx context.Context) error {
					cancel()
					return ctx.Err()
				}})
			}
		})
		report, err := l.pods.Audit(ctx, true, false)
		if err == nil || len(report.Findings) != 1 || report.Findings[0].About != audit.Leftover || len(l.pods.audits.stuck) != 0 {
			t.Errorf("given up: %+v, %v, quarantine %v", report.Findings, err, l.pods.audits.stuck)
		}
		l.world.change(func() { l.world.extra = nil })
	})
}

func TestRemovalThatDoesNotEndIsGivenUpAndKeptInQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		synctest.Wait()
		began := time.Now()
		f := l.pods.judge(t.Context(), endless(), true, false)
		if f.About != audit.Quarantine || len(l.pods.audits.stuck) != 1 || time.Since(began) != removalTime {
			t.Errorf("after %s: %+v, quarantine %v", time.Since(began), f, l.pods.audits.stuck)
		}
	})
}

func TestStartLeavesFoldersAloneThatWereNotMadeForContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		synctest.Wait()
		for _, name := range []string{"somebody's", strings.Repeat("d", 64)} {
			if err := os.MkdirAll(l.pods.writable(name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		r := newRecovery(l.pods, nil)
		r.strays()
		if _, ours := r.leftovers["container "+strings.Repeat("d", 64)]; len(r.leftovers) != 1 || !ours {
			t.Errorf("to be removed: %v", r.leftovers)
		}
	})
}

func TestMountsAreFoundBelowARootThatIsALink(t *testing.T) {
	real, link := t.TempDir(), filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("d", 64)
	point := filepath.Join(real, "containers", id, "upper")
	if err := os.MkdirAll(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(point, unix.MNT_DETACH)
	found, err := mountThings(link)
	if err != nil || len(found) != 1 || found[0].Name != point || found[0].Owner != id {
		t.Errorf("found %+v, %v, want %s", found, err, point)
	}
}

func TestMonitorThatDoesNotAnswerDoesNotHoldUpAnAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		if _, err := l.pods.Run(t.Context(), podConfig("a"), ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.world.change(func() { l.world.mute = true })
		began := time.Now()
		l.wantFound(l.found(true, false))
		if took := time.Since(began); took != askTime {
			t.Errorf("took %s, want %s", took, askTime)
		}
		l.world.change(func() { l.world.mute = false })
	})
}
