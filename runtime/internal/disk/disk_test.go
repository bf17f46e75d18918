package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
	"cri-mini/internal/testtool"
	"cri-mini/runtime/spec"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// du is what the tool of that name says.
func du(t *testing.T, dir string) spec.DiskUsage {
	t.Helper()
	ask := func(flags ...string) uint64 {
		out, err := exec.Command(testtool.Need(t, "du", "coreutils"), append(flags, "-sx", dir)...).Output()
		must(t, err)
		n, err := strconv.ParseUint(strings.Fields(string(out))[0], 10, 64)
		must(t, err)
		return n
	}
	return spec.DiskUsage{Bytes: ask("--block-size=1"), Inodes: ask("--inodes")}
}

func counted(t *testing.T, dir string) spec.DiskUsage {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u, err := Count(t.Context(), f, Pace{})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func agree(t *testing.T, dir string) spec.DiskUsage {
	t.Helper()
	got, want := counted(t, dir), du(t, dir)
	if got.Bytes != want.Bytes || got.Inodes != want.Inodes {
		t.Errorf("counted %d bytes in %d inodes, du says %d in %d", got.Bytes, got.Inodes, want.Bytes, want.Inodes)
	}
	return got
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCountIsWhatDuSays(t *testing.T) {
	dir := t.TempDir()
	if u := agree(t, dir); u.Inodes != 1 {
		t.Errorf("an empty folder is %d inodes", u.Inodes)
	}
	file := func(name string, size int) {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600))
	}
	file("small", 1)
	file("large", 5<<20)
	for i := range 3000 { // more than one read of the folder
		file(fmt.Sprintf("many/file-with-a-long-name-%06d", i), i%3)
	}
	for i := range 400 { // each is left again in the middle of the folder above
		file(fmt.Sprintf("folders/%d/x", i), 10)
	}
	must(t, os.Truncate(filepath.Join(dir, "small"), 1<<30)) // a hole
	must(t, os.Symlink("/", filepath.Join(dir, "link")))
	must(t, os.Symlink(strings.Repeat("x", 3000), filepath.Join(dir, "long-link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, unix.Mknod(filepath.Join(dir, "whiteout"), unix.S_IFCHR, 0))
	for i := range 50 {
		must(t, os.Link(filepath.Join(dir, "large"), filepath.Join(dir, fmt.Sprintf("folders/%d/again", i))))
	}
	agree(t, dir)
}

// Programs make folders deeper than any path, by relative names.
func TestDepthCostsNoDescriptors(t *testing.T) {
	dir := t.TempDir()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	const depth = 3000
	for range depth {
		must(t, unix.Mkdirat(at, "folder", 0o755))
		next, err := unix.Openat(at, "folder", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		unix.Close(at)
		at = next
	}
	unix.Close(at)
	var before, low unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	low = unix.Rlimit{Cur: 64, Max: before.Max}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	u := counted(t, dir)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before))
	if u.Inodes != depth+1 {
		t.Errorf("%d folders counted, want %d", u.Inodes, depth+1)
	}
	// The standard library opens each level.
	must(t, exec.Command(testtool.Need(t, "rm", "coreutils"), "-rf", dir).Run())
}

func TestOtherFileSystemsAreNotEntered(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "mounted/below"), 0o755))
	without := counted(t, dir)
	must(t, unix.Mount("tmpfs", filepath.Join(dir, "mounted"), "tmpfs", 0, ""))
	defer unix.Unmount(filepath.Join(dir, "mounted"), unix.MNT_DETACH)
	must(t, os.WriteFile(filepath.Join(dir, "mounted/x"), make([]byte, 1<<20), 0o600))
	if got := counted(t, dir); got.Bytes >= without.Bytes || got.Inodes != 1 {
		t.Errorf("with a mount %d bytes in %d inodes, without %d in %d", got.Bytes, got.Inodes, without.Bytes, without.Inodes)
	}
}

// Whoever moves folders about cannot lead the count out of its own folder, and
// cannot end it: what comes behind the moved ones is counted as well, and those
// themselves are found.
func TestMovedFoldersNeitherLeadOutNorHideAnything(t *testing.T) {
	for name, depth := range map[string]int{"near the top": 0, "deep": 600} {
		t.Run(name, func(t *testing.T) { moveAndCount(t, depth) })
	}
}

func moveAndCount(t *testing.T, depth int) {
	outside := t.TempDir()
	for i := range 200 {
		must(t, os.WriteFile(filepath.Join(outside, strconv.Itoa(i)), nil, 0o600))
	}
	top := filepath.Join(outside, "counted")
	dir := filepath.Join(top, strings.Repeat("d/", depth))
	must(t, os.MkdirAll(dir, 0o755))
	const folders, files, size = 8, 300, 8 << 20
	for i := range folders {
		must(t, os.MkdirAll(filepath.Join(dir, fmt.Sprintf("a%d/s", i)), 0o755))
		must(t, os.MkdirAll(filepath.Join(dir, fmt.Sprintf("b%d", i)), 0o755))
		for j := range files {
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("a%d/s/%d", i, j)), nil, 0o600))
		}
	}
	for _, name := range []string{"big", "z"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name, "file"), make([]byte, size), 0o600))
	}
	still := counted(t, top)
	ctx, stop := context.WithCancel(t.Context())
	var mover sync.WaitGroup
	mover.Go(func() {
		for ctx.Err() == nil {
			for _, way := range []string{"ab", "ba"} {
				for i := range folders {
					os.Rename(filepath.Join(dir, fmt.Sprintf("%c%d/s", way[0], i)), filepath.Join(dir, fmt.Sprintf("%c%d/s", way[1], i)))
					time.Sleep(300 * time.Microsecond)
				}
			}
		}
	})
	defer mover.Wait()
	defer stop()
	f, err := os.Open(top)
	must(t, err)
	defer f.Close()
	const counts = 16
	whole := 0
	for range counts {
		u, err := Count(t.Context(), f, Pace{Batch: 128, Rest: 1})
		must(t, err)
		if u.Bytes < 2*size || u.Inodes > still.Inodes {
			t.Errorf("%d bytes in %d inodes counted, of %d in %d", u.Bytes, u.Inodes, still.Bytes, still.Inodes)
		}
		if u.Inodes == still.Inodes {
			whole++
		}
	}
	t.Logf("%d counts of %d found all", whole, counts)
	if whole < counts/4 {
		t.Errorf("only %d counts of %d found all", whole, counts)
	}
}

func TestWithoutHandlesTheWayStaysOpen(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", maxHeld-1)), 0o755))
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	c, err := newCount(t.Context(), int(f.Fd()), Pace{})
	must(t, err)
	c.way.handles = false
	must(t, c.all(int(f.Fd())))
	if want := counted(t, dir); c.usage.Bytes != want.Bytes || c.usage.Inodes != want.Inodes {
		t.Errorf("counted %+v, want %+v", c.usage, want)
	}
	must(t, os.Mkdir(filepath.Join(dir, strings.Repeat("d/", maxHeld-1), "d"), 0o755))
	c.sweep++
	if err := c.run(int(f.Fd())); err == nil || !strings.Contains(err.Error(), "more than 512 folders") {
		t.Errorf("deeper than that: %v", err)
	}
}

func TestCountRestsAndCanBeStopped(t *testing.T) {
	dir := t.TempDir()
	for i := range 1000 {
		must(t, os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600))
	}
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	worked, began := cpuTime(t), time.Now()
	if _, err := Count(t.Context(), f, Pace{Batch: 50, Rest: 20}); err != nil {
		t.Fatal(err)
	}
	if used, took := cpuTime(t)-worked, time.Since(began); used > took/4 {
		t.Errorf("worked %s of %s", used, took)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if u, err := Count(ctx, f, Pace{Batch: 1, Rest: 1000}); !errors.Is(err, context.DeadlineExceeded) || u.Inodes == 0 || u.Inodes >= 1000 {
		t.Errorf("stopped after %d inodes: %v", u.Inodes, err)
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Timespec
	must(t, unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used))
	return time.Duration(used.Nano())
}

func FuzzEntries(f *testing.F) {
	dir, err := os.Open("/proc")
	if err != nil {
		f.Fatal(err)
	}
	defer dir.Close()
	buffer := make([]byte, 4096)
	n, err := unix.Getdents(int(dir.Fd()), buffer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(buffer[:n])
	f.Add(make([]byte, nameAt))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 4, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		for len(data) > 0 {
			_, rest, err := parse(data)
			if err != nil {
				return
			}
			if len(rest) >= len(data) {
				t.Fatal("no progress")
			}
			data = rest
		}
	})
}
