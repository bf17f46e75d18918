package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var open = Resources{AllowAllDevices: true}

func TestFindPrefersTheUsualPlaces(t *testing.T) {
	root, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root.Path, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Fatalf("found %s, which is no cgroup2: %x, %v", root.Path, fs.Type, err)
	}
	table := `24 1 0:22 / /proc rw - proc proc rw
30 24 0:26 / /mnt/with\040space rw,relatime shared:9 - cgroup2 cgroup2 rw
31 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
half a line`
	want := []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/mnt/with space"}
	if got := mountPoints([]byte(table)); !slices.Equal(got, want) {
		t.Fatalf("mount points %q, want %q", got, want)
	}
	if got := mountPoints([]byte("24 1 0:22 / /proc rw - proc proc rw\n")); got != nil {
		t.Fatalf("mount points %q in a table without any", got)
	}
}

func TestBadPathsAreRefused(t *testing.T) {
	for _, p := range []string{
		"", "/", "relative", "/a/../b", "/..", "/a/", "//a", "/a/./b", "/a\nb", "/a\x00b",
		"/sys/fs/cgroup/a", "/" + strings.Repeat("n", 256), strings.Repeat("/nnn", 1000),
	} {
		if _, err := real.Create(p, open); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", p)) {
			t.Errorf("Create(%q): error %v, want one that names the path", p, err)
		}
		if _, err := real.Load(p); err == nil {
			t.Errorf("Load(%q) succeeded", p)
		}
	}
}

func TestGroupLivesAndGoes(t *testing.T) {
	place := ownPlace(t)
	g := create(t, place+"/pod/container", open)
	defer remove(t, real.group(place+"/pod"))
	if same, err := real.Load(g.Path); err != nil || same.Path != g.Path {
		t.Fatalf("Load: %v, %v", same, err)
	}
	if again, err := real.Create(g.Path, open); err != nil || again.Path != g.Path {
		t.Fatalf("second Create: %v, %v; want the same group", again, err)
	}

	cmd := start(t, g, "sleep")
	if p, err := g.Populated(); err != nil || !p {
		t.Errorf("Populated with a process: %v, %v", p, err)
	}
	if pids, err := real.group(place).Procs(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("Procs: %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil || status.Signal() != unix.SIGKILL {
		t.Errorf("process ended with %v, %v; want SIGKILL", status, err)
	}
	remove(t, g)
	if _, err := real.Load(g.Path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Load after Remove: %v", err)
	}
}

func TestAGroupThatIsGoneIsNoError(t *testing.T) {
	g := create(t, ownPlace(t), open)
	remove(t, g)
	remove(t, g)
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if p, err := g.Populated(); p || err != nil {
		t.Errorf("Populated: %v, %v", p, err)
	}
	if pids, err := g.Procs(); len(pids) != 0 || err != nil {
		t.Errorf("Procs: %v, %v", pids, err)
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("OOMKills: %v, %v", n, err)
	}
	if f := g.Files(); f != nil {
		t.Errorf("Files: %v", f)
	}
	if _, err := g.Stats(0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Stats: %v, want ENOENT", err)
	}
	if err := g.Update(Resources{PidsLimit: -1}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Update: %v, want ENOENT also for a neutral value", err)
	}
}

func TestRemoveEndsABreedingProgramAndItsOwnGroups(t *testing.T) {
	g := create(t, ownPlace(t), open)
	cmd := start(t, g, "breed")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(g.dir + "/below/below/below"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the program made no groups")
		}
	}
	begin := time.Now()
	remove(t, g)
	t.Logf("removed after %v", time.Since(begin))
	_ = cmd.Wait()
}

func TestRemoveReachesBelowTheLongestPath(t *testing.T) {
	g := create(t, ownPlace(t), open)
	fd, err := unix.Open(g.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 250)
	for range 30 { // 7500 bytes
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
	remove(t, g)
	if g.exists() {
		t.Fatal("the group is still there")
	}
}

// A mount point is as busy as a group whose process is in uninterruptible
// sleep, and stays so for as long as the test wants.
func TestRemoveGivesUpWithItsContext(t *testing.T) {
	g := Root{Path: t.TempDir()}.group("/busy")
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", g.dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"cgroup.kill": "", "cgroup.events": "populated 1\nfrozen 0\n"} {
		if err := os.WriteFile(g.file(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, errors.New("caller has left"))
	defer cancel()
	begin := time.Now()
	err := g.Remove(ctx)
	if err == nil || err.Error() != "remove cgroup /busy: still has processes: caller has left" {
		t.Errorf("Remove: %v", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("gave up after %v, want 50 ms and one pause", took)
	}
	if killed, err := g.read("cgroup.kill"); err != nil || killed != "1" {
		t.Errorf("cgroup.kill holds %q, %v; want 1", killed, err)
	}
	if err := unix.Unmount(g.dir, 0); err != nil {
		t.Fatal(err)
	}
	remove(t, g)
}

func TestNeighboursMayCreateAndRemoveAtOnce(t *testing.T) {
	place := ownPlace(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 30 {
				g, err := real.Create(fmt.Sprintf("%s/shared/%d-%d", place, i, j), open)
				if err != nil {
					t.Error(err)
					return
				}
				if j%3 == 0 { // fails after the group was made
					if _, err := real.Create(g.Path+"/x", Resources{AllowAllDevices: true, Unified: map[string]string{"hugetlb.nonsense": "1"}}); err == nil {
						t.Error("a limit without a file was accepted")
					}
				}
				remove(t, g)
			}
		})
	}
	all.Wait()
	_ = unix.Rmdir(real.Path + place + "/shared")
}

func TestCreateSurvivesTheLossOfAParentItFound(t *testing.T) {
	place := ownPlace(t)
	create(t, place, open)
	stop := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() { // a neighbour whose creations fail all the time
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Mkdir(real.Path+place+"/shared", 0o755)
				_ = unix.Rmdir(real.Path + place + "/shared")
			}
		}
	})
	for i := range 300 {
		g, err := real.Create(fmt.Sprintf("%s/shared/%d", place, i), open)
		if err != nil {
			t.Error(err)
			break
		}
		remove(t, g)
	}
	close(stop)
	other.Wait()
	_ = unix.Rmdir(real.Path + place + "/shared")
}

func TestGroupBelowOneThatIsGoneIsNotMade(t *testing.T) {
	place := ownPlace(t)
	parent := create(t, place, open)
	below, err := real.CreateBelow(parent.Path, "x")
	if err != nil {
		t.Fatal(err)
	}
	if lives, err := below.Populated(); lives || err != nil || below.Path != place+"/x" {
		t.Errorf("group %s: populated %t, %v", below.Path, lives, err)
	}
	remove(t, parent)
	if _, err := real.CreateBelow(parent.Path, "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("below a group that is gone: %v, want that it does not exist", err)
	}
	if _, err := os.Stat(real.Path + place); err == nil {
		t.Error("the group that was gone is there again")
	}
	for _, bad := range []string{"..", "", "a/../b"} {
		if _, err := real.CreateBelow(place, bad); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("name %q: %v", bad, err)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	place := ownPlace(t)
	for name, res := range map[string]Resources{
		"limit without a controller or a file": {AllowAllDevices: true, HugepageLimits: []HugepageLimit{{"3KB", 5}}},
		"device rule":                          {Devices: []DeviceRule{{Type: 'x', Access: "r"}}},
	} {
		if _, err := real.Create(place+"/pod/container", res); err == nil {
			t.Errorf("%s: Create succeeded", name)
		}
		if _, err := os.Stat(real.Path + place); err == nil {
			t.Errorf("%s: left groups behind", name)
		}
	}
}

func TestFilesShowsValues(t *testing.T) {
	g := create(t, ownPlace(t), open)
	defer remove(t, g)
	files := g.Files()
	if files["cgroup.type"] != "domain" || files["cgroup.events"] != "populated 0\nfrozen 0" {
		t.Errorf("files %v", files)
	}
	if _, ok := files["cgroup.kill"]; ok {
		t.Error("cgroup.kill cannot be read, yet is shown")
	}
}
