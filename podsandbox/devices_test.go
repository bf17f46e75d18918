package podsandbox

//lint:file-ignore SA1019 the deprecated field is in the API and must be obeyed.

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

func TestFolderStandsForTheDevicesInIt(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"null", "sub/zero"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{dir, link} {
		got, err := findDevices(t.Context(), []*criapi.Device{{HostPath: host, ContainerPath: "/dev/x", Permissions: "r"}})
		want := []spec.Device{
			{HostPath: dir + "/null", ContainerPath: "/dev/x/null", Permissions: "r"},
			{HostPath: dir + "/sub/zero", ContainerPath: "/dev/x/sub/zero", Permissions: "r"},
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("findDevices(%s) gives %v, %v; want %v", host, got, err, want)
		}
	}
	for _, bad := range []string{dir + "/plain", dir + "/missing", "dev/null", ""} {
		_, err := findDevices(t.Context(), []*criapi.Device{{HostPath: bad, ContainerPath: "/dev/x"}})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "config.devices[0].host_path") || !strings.Contains(err.Error(), bad) {
			t.Errorf("findDevices(%q): %v; want field and value", bad, err)
		}
	}
}

func TestPrivilegedSeesTheNodesDevicesButNotItsTerminals(t *testing.T) {
	list, err := hostDevices()
	if err != nil {
		t.Fatal(err)
	}
	null := false
	for _, d := range list {
		null = null || d.HostPath == "/dev/null"
		for own := range ownDevices {
			if d.HostPath == own || strings.HasPrefix(d.HostPath, own+"/") {
				t.Errorf("%s is among the devices", d.HostPath)
			}
		}
	}
	if !null {
		t.Errorf("no /dev/null among %v", list)
	}
}

func TestUnreadableProfileIsNamed(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{bad, filepath.Join(dir, "missing.json"), "relative.json"} {
		_, err := loadProfile(t.Context(), &criapi.LinuxContainerSecurityContext{
			Seccomp: &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: path},
		})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "seccomp.localhost_ref") || !strings.Contains(err.Error(), path) {
			t.Errorf("profile %s: %v; want field and value", path, err)
		}
		old := &criapi.LinuxContainerSecurityContext{SeccompProfilePath: "localhost/" + path}
		_, err = loadProfile(t.Context(), old)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "seccomp_profile_path") || !strings.Contains(err.Error(), path) {
			t.Errorf("profile %s in the deprecated field: %v; want field and value", path, err)
		}
		old.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault}
		if _, err := loadProfile(t.Context(), old); err != nil {
			t.Errorf("profile %s in the deprecated field, which does not count: %v", path, err)
		}
	}
}
