package podsandbox

import (
	"errors"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestResourcesOfAPodAreKept(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.do([]string{"run", "a"})
		pod := func() *Sandbox {
			s, err := l.pods.Sandbox(l.id("a"))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		check := func(when string, overhead, resources *criapi.LinuxContainerResources) {
			t.Helper()
			want := podConfig("a")
			want.Linux.Overhead, want.Linux.Resources = overhead, resources
			if got := pod().Status().Config; !proto.Equal(got, want) {
				t.Errorf("%s the config is %v, want %v", when, got, want)
			}
		}
		overhead, large := &criapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 20}, &criapi.LinuxContainerResources{CpuQuota: 7000, CpuPeriod: 1000}
		if err := pod().UpdateResources(overhead, nil); err != nil {
			t.Fatal(err)
		}
		check("after an update of the overhead", overhead, nil)
		if err := pod().UpdateResources(nil, large); err != nil {
			t.Fatal(err)
		}
		check("after an update of the resources", overhead, large)
		l.do([]string{"restart"})
		check("after a restart", overhead, large)
		small := &criapi.LinuxContainerResources{CpuShares: 2}
		if err := pod().UpdateResources(overhead, small); err != nil {
			t.Fatal(err)
		}
		check("after the whole was replaced", overhead, small)

		// A record that cannot be written: a folder is in its place.
		path := pod().dir.path(podResources)
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := pod().UpdateResources(nil, large); err == nil {
			t.Error("a record that could not be written was called kept")
		}
		check("after a failed update", overhead, small)

		gone := pod()
		l.do([]string{"remove", "a"})
		if err := gone.UpdateResources(nil, large); !errors.Is(err, ErrNotFound) {
			t.Errorf("update of a removed pod: %v, want %v", err, ErrNotFound)
		}
	})
}
