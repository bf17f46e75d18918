package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"cri-mini/image/layer"
	"cri-mini/internal/testregistry"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// BenchmarkPull200MB pulls and unpacks ten layers of 20 MB, 2000 files in all,
// from a registry in this process, in turns with the least that anybody has to
// do: see floor. The processor time is that of both sides of the connection.
func BenchmarkPull200MB(b *testing.B) { benchPulls(b, 10, 200, 100<<10) }

// BenchmarkPullOneLayer is the same as one layer.
func BenchmarkPullOneLayer(b *testing.B) { benchPulls(b, 1, 2000, 100<<10) }

// BenchmarkPullSmallFiles pulls 30,000 files of a kilobyte.
func BenchmarkPullSmallFiles(b *testing.B) { benchPulls(b, 3, 10000, 1<<10) }

func benchPulls(b *testing.B, layers, files, size int) {
	for _, compression := range []string{testregistry.Gzip, testregistry.Zstd} {
		b.Run(compression, func(b *testing.B) {
			r := testregistry.New(testregistry.Options{})
			defer r.Close()
			var all []testregistry.Layer
			for i := range layers {
				l := testregistry.Layer{Compression: compression}
				for j := range files {
					name := fmt.Sprintf("d%d/f%d", i, j)
					l.Files = append(l.Files, testregistry.File{Name: name, Data: words(name, size)})
				}
				all = append(all, l)
			}
			r.Push("app", "1", image(all...))
			for _, form := range []string{layer.Directory, layer.Erofs} {
				b.Run(form, func(b *testing.B) {
					b.SetBytes(int64(layers * files * size))
					benchPull(b, r, form)
				})
			}
		})
	}
}

func benchPull(b *testing.B, r *testregistry.Registry, form string) {
	var pulls, floors spans
	for b.Loop() {
		b.StopTimer()
		var blobs []digest.Digest
		root := b.TempDir()
		s, err := Open(root, Options{LayerForm: form})
		if missing := (*layer.ErrUnsupported)(nil); errors.As(err, &missing) {
			b.Skip(missing)
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		pulls.measure(func() {
			_, err = s.Pull(b.Context(), r.Host()+"/app:1", PullOptions{
				Progress: func(p Progress) { blobs = append(blobs, p.Layer) },
			})
		})
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
		clean(b, root)
		slices.Sort(blobs)
		root = b.TempDir()
		floors.measure(func() { err = floor(b.Context(), r.URL(), root, slices.Compact(blobs)) })
		if err != nil {
			b.Fatal(err)
		}
		clean(b, root)
		b.StartTimer()
	}
	pulls.report(b, "")
	floors.report(b, "floor-")
}

// clean gives each turn the same to begin with: memory and a disk at rest.
func clean(b *testing.B, root string) {
	if err := os.RemoveAll(root); err != nil {
		b.Fatal(err)
	}
	unix.Sync()
	runtime.GC()
}

// floor is what no pull can leave out, with the same libraries: download, hash,
// decompress, hash, read the archive, write the files. No checks, no owners, no
// times, no books.
func floor(ctx context.Context, url, root string, blobs []digest.Digest) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLayers)
	for _, blob := range blobs {
		g.Go(func() error { return floorLayer(ctx, url, filepath.Join(root, blob.Encoded()), blob) })
	}
	return g.Wait()
}

func floorLayer(ctx context.Context, url, dir string, blob digest.Digest) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v2/app/blobs/"+blob.String(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum, diff := sha256.New(), sha256.New()
	body := io.TeeReader(resp.Body, sum)
	plain, done, err := decompress(body)
	if err != nil {
		return err
	}
	defer done()
	stream, buf := io.TeeReader(plain, diff), make([]byte, 128<<10)
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := floorFile(filepath.Join(dir, h.Name), r, buf); err != nil {
			return err
		}
	}
	for _, rest := range []io.Reader{stream, body} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return err
		}
	}
	if hex.EncodeToString(sum.Sum(nil)) != blob.Encoded() {
		return fmt.Errorf("blob %s: other content", blob)
	}
	return nil
}

func floorFile(path string, r io.Reader, buf []byte) error {
	f, err := os.Create(path)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			f, err = os.Create(path)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, r, buf)
	return err
}

// spans are the times that one side took, by the clock and of the processors.
type spans struct{ wall, cpu []time.Duration }

func (s *spans) measure(run func()) {
	wall, cpu := time.Now(), cpuTime()
	run()
	s.wall = append(s.wall, time.Since(wall))
	s.cpu = append(s.cpu, cpuTime()-cpu)
}

func (s *spans) report(b *testing.B, side string) {
	for what, all := range map[string][]time.Duration{"ms": s.wall, "cpu-ms": s.cpu} {
		slices.Sort(all)
		b.ReportMetric(float64(all[0].Milliseconds()), side+"least-"+what)
		b.ReportMetric(float64(all[len(all)/2].Milliseconds()), side+"median-"+what)
	}
}

// cpuTime is what this process has used so far, in user and kernel mode.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// words is text that compresses about as well as programs do.
func words(seed string, size int) string {
	sum := sha256.Sum256([]byte(seed))
	state := binary.LittleEndian.Uint64(sum[:])
	out := make([]byte, 0, size+16)
	for len(out) < size {
		state = state*6364136223846793005 + 1442695040888963407
		out = binary.LittleEndian.AppendUint32(out, uint32(state>>40))
		out = append(out, "some text "[:(state>>60)%10]...)
	}
	return string(out[:size])
}

// BenchmarkList is what every kubelet does twice a second.
func BenchmarkList(b *testing.B) {
	s := &Store{}
	s.list = make([]Image, 100)
	for b.Loop() {
		s.List()
	}
}
