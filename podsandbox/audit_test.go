package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cri-mini/runtime/spec"
)

// found lists what an audit says, without what it says about it.
func (l *life) found(remove, again bool) (list []string) {
	l.t.Helper()
	report, err := l.pods.Audit(l.t.Context(), remove, again)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range report.Findings {
		list = append(list, fmt.Sprintf("%s %s %.4s", f.About, f.Kind, strings.TrimPrefix(f.Owner, folderOwner)))
	}
	slices.Sort(list)
	return list
}

func (l *life) wantFound(got []string, want ...string) {
	l.t.Helper()
	if !slices.Equal(got, want) {
		l.t.Errorf("audit finds %q, want %q", got, want)
	}
}

func TestLeftoverThatCannotBeRemovedIsKeptInQuarantineAndNotTriedAgainByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		id := strings.Repeat("d", 64)
		synctest.Wait() // the audit of the start
		l.world.change(func() {
			l.world.prepared[id] = spec.Container{}
			l.world.fail["Remove control group"] = errors.New("device or resource busy")
		})
		l.wantFound(l.found(false, false), "leftover control group dddd")
		l.wantFound(l.found(true, false), "quarantine control group dddd")
		l.world.change(func() { delete(l.world.fail, "Remove control group") })
		l.wantFound(l.found(true, false), "quarantine control group dddd")
		report, err := l.pods.Audit(t.Context(), true, false)
		if err != nil || !strings.Contains(report.Findings[0].Why, "device or resource busy") {
			t.Errorf("quarantine without its reason: %+v, %v", report.Findings, err)
		}
		time.Sleep(2 * auditPace) // nor by the timer
		if l.world.prepared[id].ID != "" || len(l.world.prepared) != 1 {
			t.Errorf("the timer tried again: %v", l.world.prepared)
		}
		l.wantFound(l.found(true, true), "removed control group dddd")
		l.wantFound(l.found(true, true))
	})
}

func TestTimerRemovesWhatIsLeftWithinAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		synctest.Wait()
		writable := l.pods.writable(strings.Repeat("d", 64))
		if err := os.MkdirAll(writable+"/upper", 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(auditPace + time.Minute)
		if _, err := os.Stat(writable); !os.IsNotExist(err) {
			t.Errorf("a writable layer of nobody after an hour: %v", err)
		}
	})
}

func TestFolderWithARecordThatTheDaemonDoesNotKnowIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		dir := l.root + "/pods/" + strings.Repeat("d", 64)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/pod.json", []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		l.wantFound(l.found(true, true), "quarantine record folder dddd")
		if _, err := os.Stat(dir + "/pod.json"); err != nil {
			t.Error(err)
		}
	})
}

func TestContainerThatLostItsThingsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		pod, err := l.pods.Run(t.Context(), podConfig("a"), "")
		if err != nil {
			t.Fatal(err)
		}
		id, err := l.pods.Create(t.Context(), pod, containerConfig("web"))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.container(id).Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(l.pods.writable(id), 0o700); err != nil { // as an executor does
			t.Fatal(err)
		}
		l.wantFound(l.found(true, true))
		l.world.change(func() { delete(l.world.prepared, id); delete(l.world.tasks, id) })
		l.wantFound(l.found(true, true), "missing control group "+id[:4], "missing task of the monitor "+id[:4])
	})
}

// TestAuditsTakeNothingFromCallsAtWork has pods come and go in every order while
// audits remove what has no record.
func TestAuditsTakeNothingFromCallsAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		l.world.change(func() {
			l.world.around = func(string) { time.Sleep(300 * time.Millisecond) } // so that audits find everything half done
		})
		over := make(chan struct{})
		var audits sync.WaitGroup
		audits.Go(func() {
			for {
				report, err := l.pods.Audit(context.Background(), true, true)
				if err != nil || len(report.Findings) > 0 {
					t.Errorf("audit: %+v, %v", report.Findings, err)
				}
				select {
				case <-over:
					return
				case <-time.After(70 * time.Millisecond):
				}
			}
		})
		var lives sync.WaitGroup
		for w := range 8 {
			lives.Go(func() {
				for n := range 10 {
					time.Sleep(time.Duration(w*37+n*11) * time.Millisecond)
					if err := l.oneLife(fmt.Sprintf("w%d-%d", w, n)); err != nil {
						t.Errorf("a pod lost something: %v", err)
					}
				}
			})
		}
		lives.Wait()
		close(over)
		audits.Wait()
	})
}

func (l *life) oneLife(name string) error {
	ctx := context.Background()
	pod, err := l.pods.Run(ctx, podConfig(name), "")
	if err != nil {
		return err
	}
	id, err := l.pods.Create(ctx, pod, containerConfig("web"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.pods.writable(id), 0o700); err != nil {
		return err
	}
	c, err := l.pods.Container(id)
	if err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	l.world.mu.Lock()
	_, group := l.world.prepared[id]
	_, task := l.world.tasks[id]
	_, lease := l.world.connected[pod]
	l.world.mu.Unlock()
	_, layer := os.Stat(l.pods.writable(id))
	if !group || !task || !lease || layer != nil {
		return fmt.Errorf("pod %s: group %t, task %t, lease %t, layer %v", name, group, task, lease, layer)
	}
	if err := l.pods.Remove(ctx, pod); err != nil {
		return err
	}
	return os.RemoveAll(l.pods.writable(id)) // as an executor does, but later
}
