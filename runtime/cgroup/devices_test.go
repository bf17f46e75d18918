package cgroup

import (
	"strings"
	"testing"
)

func TestDevicesOutsideTheListAreDenied(t *testing.T) {
	const denied = "operation not permitted"
	place := ownPlace(t)
	for name, c := range map[string]struct {
		res  Resources
		want string
	}{
		"default":    {Resources{}, "null=<nil> kmsg-r=" + denied + " kmsg-rw=" + denied + " mknod=<nil>"},
		"read only":  {Resources{Devices: []DeviceRule{{'c', 1, 11, "r"}}}, "null=<nil> kmsg-r=<nil> kmsg-rw=" + denied + " mknod=<nil>"},
		"block 1:11": {Resources{Devices: []DeviceRule{{'b', 1, 11, "rwm"}}}, "null=<nil> kmsg-r=" + denied + " kmsg-rw=" + denied + " mknod=<nil>"},
		"all minors": {Resources{Devices: []DeviceRule{{'c', 1, AnyNumber, "rw"}}}, "null=<nil> kmsg-r=<nil> kmsg-rw=<nil> mknod=<nil>"},
		"all":        {Resources{AllowAllDevices: true}, "null=<nil> kmsg-r=<nil> kmsg-rw=<nil> mknod=<nil>"},
	} {
		g := create(t, place+"/"+strings.ReplaceAll(name, " ", "-"), c.res)
		cmd := start(t, g, "devices")
		err := cmd.Wait()
		if got := strings.TrimSpace(cmd.Stdout.(*strings.Builder).String()); err != nil || got != c.want {
			t.Errorf("%s: program says %q, %v; want %q", name, got, err, c.want)
		}
		remove(t, g)
	}
}

func TestBadDeviceRulesAreNamed(t *testing.T) {
	for want, rule := range map[string]DeviceRule{
		`device rule: type 'a': want b or c`:                 {Type: 'a', Access: "r"},
		`device rule: access "rx": want letters of rwm`:      {Type: 'c', Access: "rx"},
		`device rule: access "": want letters of rwm`:        {Type: 'c'},
		`device rule: major number -2: out of range`:         {Type: 'c', Major: -2, Access: "r"},
		`device rule: minor number 4294967296: out of range`: {Type: 'c', Minor: 1 << 32, Access: "r"},
	} {
		if _, err := assemble([]DeviceRule{rule}); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	limited := kubeletBestEffort()
	limited.AllowAllDevices = true
	for name, res := range map[string]Resources{"pod": open, "limits": limited, "filter": {}, "container": kubeletBestEffort(), "own device": {Devices: []DeviceRule{{'c', 10, 200, "rw"}}}} {
		b.Run(name, func(b *testing.B) {
			place := ownPlace(b)
			parent := create(b, place, open)
			defer remove(b, parent)
			for b.Loop() {
				g, err := real.Create(place+"/x", res)
				if err != nil {
					b.Fatal(err)
				}
				remove(b, g)
			}
		})
	}
}
