package layer

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writerEnv makes the test binary a process that writes and removes layers
// until it is killed.
const writerEnv = "LAYER_TEST_WRITER"

func TestWriterProcess(t *testing.T) {
	form, root, found := strings.Cut(os.Getenv(writerEnv), " ")
	if !found {
		return // only the victim of TestKillAtAnyMomentLeavesCompleteLayersOnly has something to do
	}
	s, err := Open(root, form)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range crashArchives(t) {
		for {
			p, err := s.Write(context.Background(), bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := s.Remove(p.DiffID()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func crashArchives(t testing.TB) [][]byte {
	list := []item{dir("d"), file("d/f", strings.Repeat("x", 300_000)), hardlink("h", "d/f"), symlink("s", "d")}
	for i := range 50 {
		list = append(list, file("d/"+strings.Repeat("n", i+1), "text").xattr("user.a", "b"))
	}
	return [][]byte{archive(t, list...)}
}

func TestKillAtAnyMomentLeavesCompleteLayersOnly(t *testing.T) {
	data := crashArchives(t)[0]
	eachForm(t, func(t *testing.T, s Store) {
		want := view(t, lower(t, s, write(t, s, data)))
		interrupted := 0
		for moment := range 20 {
			root := t.TempDir()
			killWriter(t, s.Form(), root, time.Duration(moment)*1100*time.Microsecond)
			for _, dir := range []string{unfinishedDir, removedDir} {
				left, err := os.ReadDir(filepath.Join(root, dir))
				if err != nil {
					t.Fatal(err)
				}
				interrupted += len(left)
			}
			after, err := Open(root, s.Form())
			if err != nil {
				t.Fatal(err)
			}
			if err := after.Sweep(); err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, after)
			list, err := after.List()
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range list {
				sameLines(t, view(t, lower(t, after, info.DiffID)), want)
			}
		}
		if interrupted == 0 {
			t.Error("no kill came while a layer was written or removed: nothing was tested")
		}
	})
}

// killWriter starts a writer and kills it some time after its first layer.
func killWriter(t *testing.T, form, root string, after time.Duration) {
	victim := exec.Command(os.Args[0], "-test.run=^TestWriterProcess$")
	victim.Env = append(os.Environ(), writerEnv+"="+form+" "+root)
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
		if list, _ := os.ReadDir(filepath.Join(root, unfinishedDir)); len(list) > 0 {
			break
		}
	}
	time.Sleep(after)
	if err := victim.Process.Kill(); err != nil {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	victim.Wait()
}
