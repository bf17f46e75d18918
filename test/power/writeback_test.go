package power

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// writeback does what the kernel does when memory is short or half a minute has
// passed: it brings single files of layers to the disk, in no order, while they
// are written and before anybody has asked for it. It ends with the channel.
func writeback(layers string, seed uint64, end <-chan struct{}) {
	chance := rand.New(rand.NewPCG(seed, 2))
	for {
		select {
		case <-end:
			return
		case <-time.After(time.Duration(chance.IntN(4000)) * time.Microsecond):
		}
		dir := filepath.Join(layers, []string{"unfinished", "layers"}[chance.IntN(2)])
		// Each may be gone at any moment, and then there is nothing to write.
		folder := filepath.Join(dir, anyName(dir, chance))
		name := filepath.Join(folder, anyName(folder, chance))
		for strings.HasPrefix(name, filepath.Join(folder, "tree")) && isFolder(name) {
			next := anyName(name, chance)
			if next == "" {
				break
			}
			name = filepath.Join(name, next)
		}
		if file, err := os.Open(name); err == nil {
			_ = file.Sync()
			file.Close()
		}
	}
}

func anyName(folder string, chance *rand.Rand) string {
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) == 0 {
		return ""
	}
	e := entries[chance.IntN(len(entries))]
	if e.Type()&os.ModeSymlink != 0 {
		return ""
	}
	return e.Name()
}

func isFolder(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.IsDir()
}
