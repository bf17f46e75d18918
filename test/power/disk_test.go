package power

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/powercut"
	"cri-mini/internal/testtool"
)

// fileSystem is what disks of these tests are made as.
type fileSystem struct {
	name, pkg string
	size      int
	make      []string // arguments of its mkfs
	// unit is what it takes for granted that a disk writes as a whole: XFS replays
	// nothing into a block whose first sector is new.
	unit int64
}

var fileSystems = map[string]fileSystem{
	"ext4": {"ext4", "e2fsprogs", 64 << 20, []string{"-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"}, powercut.Sector},
	"xfs":  {"xfs", "xfsprogs", 320 << 20, []string{"-q", "-f", "-K"}, powercut.Block},
}

// disk is a file system whose power can be cut.
type disk struct {
	*powercut.Disk
	t     *testing.T
	kind  fileSystem
	mnt   string // where it is mounted
	again func() // begins another boot
}

// newDisk makes a file system and mounts it. All from then on is recorded.
func newDisk(t *testing.T, name string) *disk {
	t.Helper()
	d := &disk{t: t, kind: fileSystems[name], mnt: t.TempDir(), again: rebooted(t)}
	program := testtool.Need(t, "mkfs."+d.kind.name, d.kind.pkg)
	var err error
	d.Disk, err = powercut.New(t.TempDir(), powercut.NewContent(d.kind.size))
	if unsupported := (*powercut.ErrUnsupported)(nil); errors.As(err, &unsupported) {
		t.Skip(unsupported)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command(program, append(d.kind.make, d.Path())...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	d.Record()
	d.mount()
	return d
}

func (d *disk) mount() {
	d.t.Helper()
	if err := d.tryMount(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) tryMount() error {
	if err := unix.Mount(d.Path(), d.mnt, d.kind.name, unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", d.kind.name, err)
	}
	return nil
}

func (d *disk) unmount() {
	d.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = unix.Unmount(d.mnt, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		d.t.Fatalf("unmount: %v", err)
	}
}

// boot mounts what the power left on the disk, in another boot.
func (d *disk) boot(c *powercut.Content) error {
	d.again()
	err := d.Show(c)
	// The kernel takes mounts away a moment after the process that had them.
	for end := time.Now().Add(patience); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = d.Show(c) {
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	return d.tryMount()
}

// What the other tests of this package show is worth as much as this disk: it
// has to lose what was not synced, and nothing else.
func TestCutTakesWhatWasNotSyncedAndNothingElse(t *testing.T) {
	d := newDisk(t, "ext4")
	synced := map[string]int{}
	content := bytes.Repeat([]byte("content "), 8<<10)
	for i := range 20 {
		name := fmt.Sprint("file", i)
		file, err := os.Create(filepath.Join(d.mnt, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = file.Write(content)
		if i%2 == 0 {
			err = errors.Join(err, file.Sync())
			synced[name] = d.Position()
		}
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	d.unmount()
	log := d.Recorded()
	replay, chance := log.Replay(d.kind.unit), rand.New(rand.NewPCG(1, 1))
	const cuts = 60
	whole, lost := 0, 0
	for i := range cuts {
		position := i * (log.Len() - 1) / (cuts - 1)
		if err := d.boot(replay.Cut(position, chance)); err != nil {
			t.Fatalf("cut at %d: %v", position, err)
		}
		for i := range 20 {
			name := fmt.Sprint("file", i)
			data, err := os.ReadFile(filepath.Join(d.mnt, name))
			right := err == nil && bytes.Equal(data, content)
			switch at, ok := synced[name]; {
			case ok && at <= position && !right:
				t.Errorf("cut at %d: %s, synced at %d, is not what was written (%v)", position, name, at, err)
			case ok && at <= position:
				whole++
			case !ok && !right:
				lost++
			}
		}
		d.unmount()
	}
	t.Logf("%d cuts of %d writes and flushes: %d synced files whole, %d others lost", cuts, log.Len()-1, whole, lost)
	if whole == 0 || lost == 0 {
		t.Errorf("%d synced files whole, %d others lost: nothing was tested", whole, lost)
	}
}
