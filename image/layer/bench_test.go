package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchArchive is about 100 MB in 5000 files of 500 directories, sizes spread
// as in a distribution's /usr: many small files, most bytes in few.
func benchArchive(b *testing.B) []byte {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4<<20)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	var list []item
	for d := range 500 {
		name := fmt.Sprintf("usr/share/d%d/e%d", d%50, d)
		list = append(list, dir(name))
		for f := range 10 {
			size := 200 << random.IntN(9)
			if random.IntN(60) == 0 {
				size = 500_000 + random.IntN(1_000_000)
			}
			at := random.IntN(len(noise) - size)
			list = append(list, file(fmt.Sprintf("%s/file%d", name, f), string(noise[at:at+size])))
		}
	}
	return archive(b, list...)
}

func benchForms(b *testing.B, run func(b *testing.B, s Store, data []byte)) {
	data := benchArchive(b)
	for _, form := range []string{Directory, Erofs} {
		b.Run(form, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			run(b, openStore(b, form), data)
		})
	}
}

// cpu is what this process has used so far, in user and kernel mode.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, spent time.Duration) {
	b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op")
}

func BenchmarkWrite(b *testing.B) {
	benchForms(b, func(b *testing.B, s Store, data []byte) {
		var spent, synced time.Duration
		for b.Loop() {
			begin := cpu()
			p, err := s.Write(context.Background(), bytes.NewReader(data))
			if err == nil {
				err = p.Commit()
			}
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			spent += cpu() - begin
			flush := time.Now()
			s.(*store).Wait()
			synced += time.Since(flush)
			if err := s.Remove(p.DiffID()); err != nil {
				b.Fatal(err)
			}
			s.(*store).Wait()
			b.StartTimer()
		}
		reportCPU(b, spent)
		b.ReportMetric(float64(synced.Milliseconds())/float64(b.N), "sync-ms/op")
	})
}

func BenchmarkRemove(b *testing.B) {
	benchForms(b, func(b *testing.B, s Store, data []byte) {
		var call, spent time.Duration
		for b.Loop() {
			b.StopTimer()
			id := write(b, s, data)
			s.(*store).Wait()
			b.StartTimer()
			begin, cpuBegin := time.Now(), cpu()
			if err := s.Remove(id); err != nil {
				b.Fatal(err)
			}
			call += time.Since(begin)
			s.(*store).Wait()
			spent += cpu() - cpuBegin
		}
		b.SetBytes(0)
		reportCPU(b, spent)
		b.ReportMetric(float64(call.Microseconds())/float64(b.N), "call-µs/op")
	})
}

// BenchmarkMount is what a container pays for a layer that nothing has mounted:
// the layer itself, an overlay on it, and a first look.
func BenchmarkMount(b *testing.B) {
	benchForms(b, func(b *testing.B, s Store, data []byte) {
		path := benchLayer(b, s, data)
		b.SetBytes(0)
		least, leastLayer := time.Hour, time.Hour // on a busy machine the least is the work
		for b.Loop() {
			begin := time.Now()
			layer := mountLayer(b, s.Form(), path)
			mounted := time.Since(begin)
			leastLayer = min(leastLayer, mounted)
			b.StopTimer()
			top := b.TempDir()
			err := errors.Join(os.Mkdir(top+"/upper", 0o755), os.Mkdir(top+"/work", 0o755))
			b.StartTimer()
			begin = time.Now()
			overlay, mountErr := mountDetached("overlay", func(fs int) error {
				return errors.Join(unix.FsconfigSetFd(fs, "lowerdir+", layer), unix.FsconfigSetString(fs, "upperdir", top+"/upper"),
					unix.FsconfigSetString(fs, "workdir", top+"/work"), unix.FsconfigSetFlag(fs, "volatile"))
			})
			var st unix.Stat_t
			if err = errors.Join(err, mountErr, unix.Fstatat(overlay, "usr/share/d1/e1/file1", &st, 0)); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			least = min(least, mounted+time.Since(begin))
			unix.Close(overlay)
			unix.Close(layer)
			b.StartTimer()
		}
		b.ReportMetric(float64(least.Microseconds()), "least-µs")
		b.ReportMetric(float64(leastLayer.Microseconds()), "least-layer-µs")
	})
}

func benchLayer(b *testing.B, s Store, data []byte) (path string) {
	id := write(b, s, data)
	s.(*store).Wait()
	path, err := s.Path(id)
	if err != nil {
		b.Fatal(err)
	}
	return path
}

func mountLayer(b *testing.B, form, path string, flags ...string) (fd int) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if form == Erofs {
		unix.Close(fd)
		fd, err = mountDetached("erofs", func(fs int) error {
			for _, flag := range flags {
				if err := unix.FsconfigSetFlag(fs, flag); err != nil {
					return err
				}
			}
			return unix.FsconfigSetString(fs, "source", path)
		})
	}
	if err != nil {
		b.Fatal(err)
	}
	return fd
}

// BenchmarkRead reads all files once after the mount: with the content still
// in the page cache since the unpacking, or from the disk. It tells how much
// page cache that takes, for an image is cached twice: its file, and the files
// in it.
func BenchmarkRead(b *testing.B) {
	data := benchArchive(b)
	for _, c := range []struct {
		name, form string
		flags      []string
	}{{Directory, Directory, nil}, {Erofs, Erofs, nil}, {"erofs-directio", Erofs, []string{"directio"}}} {
		for _, cache := range []string{"warm", "cold"} {
			b.Run(c.name+"/"+cache, func(b *testing.B) {
				path := benchLayer(b, openStore(b, c.form), data)
				b.SetBytes(int64(len(data)))
				var spent time.Duration
				var cached int64
				for b.Loop() {
					b.StopTimer()
					if cache == "cold" {
						forEachFile(b, path, func(f *os.File) { unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) })
					}
					b.StartTimer()
					begin := cpu()
					layer := mountLayer(b, c.form, path, c.flags...)
					inLayer := "/proc/self/fd/" + strconv.Itoa(layer) + "/"
					buf := make([]byte, 256<<10)
					forEachFile(b, inLayer, func(f *os.File) {
						if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf); err != nil {
							b.Fatal(err)
						}
					})
					spent += cpu() - begin
					b.StopTimer()
					cached = cachedBytes(b, inLayer)
					if c.form == Erofs {
						cached += cachedBytes(b, path)
					}
					unix.Close(layer)
					b.StartTimer()
				}
				reportCPU(b, spent)
				b.ReportMetric(float64(cached)/1e6, "cached-MB")
			})
		}
	}
}

func forEachFile(b *testing.B, root string, do func(f *os.File)) {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		do(f)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// cachedBytes is how much page cache the files below root have.
func cachedBytes(b *testing.B, root string) (total int64) {
	forEachFile(b, root, func(f *os.File) {
		var stat unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0); err != nil {
			b.Fatalf("cachestat: %v", err)
		}
		total += int64(stat.Cache) * 4096
	})
	return total
}
