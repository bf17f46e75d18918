package node

import (
	"fmt"
	"os"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestLogRotationLosesNoLine(t *testing.T) {
	d := ready(t)
	for _, o := range outputs {
		t.Run(o.name, func(t *testing.T) {
			d.enter(t)
			check := d.unchanged()
			p := d.runPod(o.name)
			c := p.chatty("talker", o.tty, o.args...)
			var parts []string
			for i := range 20 {
				c.flows()
				part := fmt.Sprintf("%s.%d", c.log, i)
				parts = append(parts, part)
				if err := os.Rename(c.log, part); err != nil {
					t.Fatal(err)
				}
				if _, err := d.ReopenContainerLog(d.context(), &criapi.ReopenContainerLogRequest{ContainerId: c.id}); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(c.log); err != nil {
					t.Fatalf("after the reopening: %v", err)
				}
				// The kubelet compresses the part at once: it must not grow.
				size := fileSize(t, part)
				time.Sleep(10 * time.Millisecond)
				if later := fileSize(t, part); later != size {
					t.Errorf("%s has grown from %d to %d bytes after the reopening", part, size, later)
				}
			}
			c.flows()
			c.stop(0)
			whole := c.log + ".whole"
			var text string
			for _, part := range append(parts, c.log) {
				text += readFile(t, part)
			}
			if err := os.WriteFile(whole, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d lines", complete(t, whole, o.tty, o.streams...))
			if _, err := d.ReopenContainerLog(d.context(), &criapi.ReopenContainerLogRequest{ContainerId: c.id}); err == nil {
				t.Error("reopening the log of an exited container succeeded")
			}
			p.remove()
			check()
		})
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
