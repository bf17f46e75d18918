package power

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var (
	cuts    = flag.Int("cuts", 15, "how often the power is cut, in each form of the store")
	rounds  = flag.Int("rounds", 1, "how often all is pulled, removed and repaired that is recorded")
	seed    = flag.Uint64("seed", 1, "what chance begins with")
	kind    = flag.String("file-system", "ext4", "ext4 or xfs")
	daemons = flag.Int("daemons", 7, "at every so many cuts a whole daemon is started")
)

// inodeOf gives 0 for what is not there.
func inodeOf(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestPowerCutAtAnyWriteServesNoWrongByteAndLosesNothingDurable(t *testing.T) {
	for _, form := range []string{"directory", "erofs"} {
		t.Run(form, func(t *testing.T) { cutPower(t, form) })
	}
}

func cutPower(t *testing.T, form string) {
	c := newCatalogue(*seed)
	t.Cleanup(c.registry.Close)
	certs := t.TempDir()
	if err := c.registry.Mirror(certs, "registry.test"); err != nil {
		t.Fatal(err)
	}
	d := newDisk(t, *kind)
	began := time.Now()
	r := record(t, d, c, certs, form, *rounds)
	t.Logf("recorded %d writes and flushes, %d flushes, in %s", r.log.Len()-1, len(r.log.Flushes()), time.Since(began).Round(time.Millisecond))
	began = time.Now()
	chance := rand.New(rand.NewPCG(*seed, 1))
	replay, sum := r.log.Replay(d.kind.unit), counts{}
	for i, position := range positions(r, *cuts, chance) {
		if err := d.boot(replay.Cut(position, chance)); err != nil {
			t.Fatalf("cut at %d: %v", position, err)
		}
		sum.cuts++
		s := &survey{recording: r, t: t, images: c, folder: filepath.Join(d.mnt, "root/images"), position: position, counts: &sum, right: map[string]uint64{}}
		if i%*daemons == *daemons-1 {
			s.wholeNode(filepath.Join(d.mnt, "root"), certs, form)
		} else {
			s.onlyStore(certs, form, i%5 == 0)
		}
		d.unmount()
		if sum.wrong > 20 {
			t.Fatal("enough")
		}
	}
	t.Logf("%s, in %s", sum, time.Since(began).Round(time.Millisecond))
	if sum.durable == 0 || sum.layers == 0 || sum.fetched == 0 {
		t.Error("nothing was tested")
	}
}

// positions are chosen at random, half of them right before a flush, where most
// is at risk, and sorted.
func positions(r *recording, n int, chance *rand.Rand) []int {
	flushes := slices.DeleteFunc(r.log.Flushes(), func(p int) bool { return p < r.begin })
	list := make([]int, n)
	for i := range list {
		if i%2 == 0 {
			list[i] = flushes[chance.IntN(len(flushes))]
		} else {
			list[i] = r.begin + chance.IntN(r.log.Len()-r.begin)
		}
	}
	slices.Sort(list)
	return list
}

func (s *survey) onlyStore(certs, form string, verify bool) {
	st, err := openStore(s.t, s.folder, certs, form)
	if err != nil {
		s.errorf("open: %v", err)
		return
	}
	s.node = st
	s.all(verify)
}

// wholeNode has a daemon come up, whatever it finds of pods.
func (s *survey) wholeNode(root, certs, form string) {
	d := newDaemon(s.t, root, certs, form)
	defer d.stop()
	s.node = d
	s.counts.daemons++
	s.all(true)
	pods, err := d.ListPodSandbox(d.context(), &criapi.ListPodSandboxRequest{})
	if err != nil {
		s.errorf("list pods: %v", err)
	}
	for _, p := range pods.GetItems() {
		if p.State == criapi.PodSandboxState_SANDBOX_READY {
			s.errorf("pod %s of the boot before is said to be ready", p.Metadata.Name)
		}
	}
	bad, err := os.ReadDir(filepath.Join(root, "bad-records"))
	if err != nil && !os.IsNotExist(err) {
		s.errorf("%v", err)
	}
	s.counts.records += len(bad)
	for _, b := range bad {
		if !strings.Contains(d.warnings(), b.Name()) {
			s.errorf("the record %s was put aside and nothing said so:\n%s", b.Name(), d.warnings())
		}
	}
}
