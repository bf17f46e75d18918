package image

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"cri-mini/image/layer"
	"cri-mini/internal/testregistry"
)

// BenchmarkPull200MB pulls and unpacks ten layers of 20 MB, 2000 files in all,
// from a registry in this process.
func BenchmarkPull200MB(b *testing.B) {
	for _, compression := range []string{testregistry.Gzip, testregistry.Zstd} {
		r := testregistry.New(testregistry.Options{})
		defer r.Close()
		var layers []testregistry.Layer
		for i := range 10 {
			l := testregistry.Layer{Compression: compression}
			for j := range 200 {
				name := fmt.Sprintf("d%d/f%d", i, j)
				l.Files = append(l.Files, testregistry.File{Name: name, Data: words(name, 100<<10)})
			}
			layers = append(layers, l)
		}
		r.Push("app", "1", image(layers...))
		for _, form := range []string{layer.Directory, layer.Erofs} {
			b.Run(compression+"/"+form, func(b *testing.B) {
				b.SetBytes(200 << 20)
				for b.Loop() {
					s, err := Open(b.TempDir(), Options{LayerForm: form})
					if err != nil {
						b.Skip(err)
					}
					if _, err := s.Pull(b.Context(), r.Host()+"/app:1", PullOptions{}); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					s.Close()
					b.StartTimer()
				}
			})
		}
	}
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
