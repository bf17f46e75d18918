package power

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/powercut"
)

// span is a part of the log, in positions.
type span struct{ from, until int }

func (s span) has(position int) bool { return s.from <= position && position < s.until }

// recording is a log of a disk and what was known at which position of it.
type recording struct {
	log *powercut.Log
	// begin is where there first is a store.
	begin int
	// told: a client was told that the image, by its ID, is there.
	told map[string][]span
	// durable: the image is marked as durable, and the mark has been synced with
	// another layer. From then on the power may take nothing of it.
	durable map[string][]span
	// spoiled: layers that the test damaged, until the repair was told of.
	spoiled map[string]span
}

func (r *recording) hasDurable(id string, position int) bool { return within(r.durable[id], position) }
func (r *recording) hasTold(id string, position int) bool    { return within(r.told[id], position) }

func within(spans []span, position int) bool {
	for _, s := range spans {
		if s.has(position) {
			return true
		}
	}
	return false
}

// recorder plays clients of a daemon and writes down what they know.
type recorder struct {
	*recording
	t      *testing.T
	disk   *disk
	daemon *daemon
	form   string
	images *catalogue

	mu     sync.Mutex
	marked map[string]bool // images whose layers were all marked when last looked at
}

func (r *recorder) root() string   { return filepath.Join(r.disk.mnt, "root") }
func (r *recorder) folder() string { return filepath.Join(r.root(), "images") }

// record lets a daemon work on the disk, rounds times.
func record(t *testing.T, d *disk, c *catalogue, certs, form string, rounds int) *recording {
	t.Helper()
	r := &recorder{t: t, disk: d, form: form, images: c, marked: map[string]bool{}, recording: &recording{
		told: map[string][]span{}, durable: map[string][]span{}, spoiled: map[string]span{},
	}}
	r.daemon = newDaemon(t, r.root(), certs, form)
	r.begin = d.Position()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		writeback(filepath.Join(r.folder(), "layers"), *seed, end)
	}()
	stopWriteback := sync.OnceFunc(func() { close(end); <-ended })
	t.Cleanup(stopWriteback)
	base := c.layer("base", 60, 200_000)
	for round := range rounds {
		tag := func(name string) string { return fmt.Sprint(name, round) }
		own := func(name string) known { return c.push(tag(name), base, c.layer(tag(name), 20, 60_000)) }
		a := own("a")
		r.pull(a)
		r.settle()
		r.pull(own("b"))
		r.settle()
		r.pull(own("c"), own("d"), own("e")) // at once
		r.settle()
		r.remove(c.images[len(c.images)-2])
		r.pull(c.images[len(c.images)-2]) // right after its removal
		r.pull(own("f"))
		r.killed() // with layers that are not on the disk
		r.settle()
		r.pull(own("a")) // the tag goes to another image
		r.settle()
		r.remove(a)
		r.repair(c.images[len(c.images)-1])
		r.pod(tag("pod"), c.images[len(c.images)-2])
		r.pull(own("g"), c.push(tag("h"), c.layer(tag("h1"), 10, 9000), c.layer(tag("h2"), 10, 9000), c.layer(tag("h3"), 10, 9000)))
		if round < rounds-1 { // make room
			for _, k := range c.images[len(c.images)-8:] {
				r.remove(k)
			}
		}
	}
	r.daemon.stop()
	stopWriteback()
	d.unmount()
	r.log = d.Recorded()
	return r.recording
}

// pull gets images at once. What the client is told counts from the answer on.
func (r *recorder) pull(images ...known) {
	r.t.Helper()
	var pulls sync.WaitGroup
	for _, k := range images {
		pulls.Go(func() {
			if err := r.daemon.pull(k.name); err != nil {
				r.t.Error(err)
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told[k.ID] = append(r.told[k.ID], span{r.disk.Position(), math.MaxInt})
		})
	}
	pulls.Wait()
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// settle returns when all layers are marked. What was marked before the last
// layers were synced is durable now, for a sync writes marks made before it.
func (r *recorder) settle() {
	r.t.Helper()
	eventually(r.t, "all layers are marked as durable", func() bool {
		marked, err1 := filepath.Glob(filepath.Join(r.folder(), "layers/layers/*/synced"))
		layers, err2 := filepath.Glob(filepath.Join(r.folder(), "layers/layers/*"))
		return err1 == nil && err2 == nil && len(marked) == len(layers)
	})
	now := r.disk.Position()
	for id, spans := range r.told {
		if spans[len(spans)-1].until != math.MaxInt {
			continue
		}
		if r.marked[id] {
			r.durable[id] = append(r.durable[id], span{now, math.MaxInt})
		}
		r.marked[id] = true
	}
}

// remove takes an image away. From the call on nothing of it is promised.
func (r *recorder) remove(k known) {
	r.t.Helper()
	r.forget(k)
	if err := r.daemon.remove(k.ID); err != nil {
		r.t.Fatal(err)
	}
}

func (r *recorder) forget(k known) {
	now := r.disk.Position()
	for _, spans := range [][]span{r.told[k.ID], r.durable[k.ID]} {
		for i := range spans {
			spans[i].until = min(spans[i].until, now)
		}
	}
	delete(r.marked, k.ID)
}

// killed lets another daemon go on.
func (r *recorder) killed() {
	r.t.Helper()
	r.daemon.kill()
	r.daemon.serve()
}

// repair spoils the layer that only this image has, and has it repaired.
func (r *recorder) repair(k known) {
	r.t.Helper()
	id := k.DiffIDs[len(k.DiffIDs)-1].String()
	from := r.disk.Position()
	folder := layerFolder(r.folder(), id)
	file := filepath.Join(folder, "image.erofs")
	if r.form == "directory" {
		found, err := filepath.Glob(filepath.Join(folder, "tree/*/large"))
		if err != nil || len(found) != 1 {
			r.t.Fatalf("no large file in %s: %v", folder, err)
		}
		file = found[0]
	}
	spoil(r.t, file)
	if out, err := r.daemon.run("image", "verify", "--repair", k.name); err != nil {
		r.t.Fatalf("repair: %v\n%s", err, out)
	}
	r.spoiled[id] = span{from, r.disk.Position()}
}

// spoil changes bytes in the middle of a file, also on the disk.
func spoil(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("spoiled, spoiled"), info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// pod leaves a pod with a container, whose records the power takes by chance.
func (r *recorder) pod(name string, k known) {
	r.t.Helper()
	d := r.daemon
	config := &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: name, Namespace: "power", Uid: name},
		Linux:    &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{NamespaceOptions: &criapi.NamespaceOption{Network: criapi.NamespaceMode_POD}}},
	}
	pod, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := d.CreateContainer(d.context(), &criapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: config, Config: &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name}, Image: &criapi.ImageSpec{Image: k.name}, Linux: &criapi.LinuxContainerConfig{},
	}}); err != nil {
		r.t.Fatal(err)
	}
}
