//go:build long

package kubelet

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"cri-mini/internal/testregistry"
)

// TestUnusedImagesGoWhenTheDiskIsFullerThanTheThreshold takes more than five
// minutes: only so often a kubelet looks.
func TestUnusedImagesGoWhenTheDiskIsFullerThanTheThreshold(t *testing.T) {
	n := startWith(t, func(n *node) {
		n.ImagesHigh, n.ImagesLow = 30, 20
		n.makeDir()
		smallDisk(t, n.dir, "300M")
	})
	n.registry.Push("big", "1", testregistry.Image{Layers: []testregistry.Layer{
		n.busybox(), testregistry.Files(map[string]string{"big": strings.Repeat("x", 100*mebibyte)})}})
	n.add("plain")
	n.add("bulky")
	n.ready("plain")
	n.until("bulky", "succeeded", func(p *pod) bool { return p.Status.Phase == "Succeeded" })
	n.remove("bulky")
	// An image that it sees for the first time a kubelet keeps: of those that are
	// there when it starts it takes none for new.
	n.kubelet.stop()
	n.startKubelet()
	n.within(7*time.Minute, "the image that nobody uses is gone", func() error {
		names, err := n.images()
		if err == nil && strings.Contains(strings.Join(names, " "), "registry.test/big:1") {
			err = fmt.Errorf("%q", names)
		}
		return err
	})
	text, err := os.ReadFile(n.kubelet.log)
	if err != nil || !strings.Contains(string(text), "Disk usage on image filesystem is over the high threshold") {
		t.Errorf("the kubelet does not say why it removed images: %v", err)
	}
	if names, err := n.images(); err != nil || !strings.Contains(strings.Join(names, " "), "registry.test/busybox:1") {
		t.Errorf("images %q, %v: want the one in use", names, err)
	}
	n.remove("plain")
}
