package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cdiNode starts an instance with one folder of spec files.
func cdiNode(t *testing.T, files map[string]string) (*daemon, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return ready(t, "--cdi-spec-dirs", dir+"/none, "+dir), dir
}

func wantsDevices(c *criapi.ContainerConfig, names ...string) *criapi.ContainerConfig {
	for _, name := range names {
		c.CDIDevices = append(c.CDIDevices, &criapi.CDIDevice{Name: name})
	}
	return c
}

const gpuSpec = `
cdiVersion: 0.7.0
kind: vendor.test/gpu
containerEdits:
  env: [DRIVER=7]
  mounts:
  - {hostPath: DIR/driver, containerPath: /usr/lib/driver, options: [ro, nosuid, nodev, bind]}
devices:
- name: "0"
  containerEdits:
    env: [GPU=0]
    additionalGids: [4242]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/zero, permissions: rw, fileMode: 0600}
    - {path: /dev/gpuctl, type: c, major: 240, minor: 9, permissions: r}
`

// checkGPU looks at the container from inside: owner is whose the nodes are.
func checkGPU(t *testing.T, c *container, owner string) {
	t.Helper()
	got := c.exec("sh", "-c", `echo $DRIVER$GPU; stat -c '%n %F %a %u:%g %t,%T' /dev/gpu0 /dev/gpuctl; cat /usr/lib/driver/version
		id -G; head -c 3 /dev/gpu0 | wc -c; touch /usr/lib/driver/x 2>&1; cat /dev/gpuctl 2>&1; (echo > /dev/gpuctl) 2>&1; true`)
	for _, want := range []string{
		"70\n", "/dev/gpu0 character special file 600 " + owner + " 1,5\n", "/dev/gpuctl character special file 666 " + owner + " f0,9\n",
		"version 7\n", "4242", "\n3\n", "Read-only file system", "can't open '/dev/gpuctl': No such device", "can't create /dev/gpuctl: Operation not permitted",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestCDIDeviceIsThereAlsoWhenTheDaemonRestartsBeforeTheStart(t *testing.T) {
	d, dir := cdiNode(t, nil)
	check := d.unchanged()
	if err := os.Mkdir(dir+"/driver", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"driver/version": "version 7\n", "gpu.yaml": strings.ReplaceAll(gpuSpec, "DIR", dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := d.runPod("gpu")
	config := wantsDevices(containerConfig("now", "sleep", "1000"), "vendor.test/gpu=0", "vendor.test/gpu=0")
	config.Linux.SecurityContext.RunAsUser = &criapi.Int64Value{Value: 1000}
	now := p.run(config)
	checkGPU(t, now, "1000:1000")
	later := p.create(wantsDevices(containerConfig("later", "sleep", "1000"), "vendor.test/gpu=0"))
	// Created means decided: what the files say afterwards is for others.
	if err := os.Remove(dir + "/gpu.yaml"); err != nil {
		t.Fatal(err)
	}
	d.restart()
	later.start()
	checkGPU(t, later, "0:0")
	checkGPU(t, now, "1000:1000")
	if groups := now.status().GetUser().GetLinux().GetSupplementalGroups(); len(groups) != 2 || groups[1] != 4242 {
		t.Errorf("groups in the status: %v", groups)
	}
	answer, err := d.ContainerStatus(d.context(), &criapi.ContainerStatusRequest{ContainerId: later.id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`vendor.test/gpu=0`, `"ContainerPath":"/dev/gpuctl"`, dir + "/driver"} {
		if !strings.Contains(answer.Info["info"], want) {
			t.Errorf("the verbose status does not tell of %s: %s", want, answer.Info["info"])
		}
	}
	p.remove()
	check()
}

func TestCDIDeviceInAUserNamespace(t *testing.T) {
	d, dir := cdiNode(t, nil)
	// On a file system that can show files with other owners.
	driver, err := os.MkdirTemp("/var/lib", "node-driver-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(driver)
	for name, text := range map[string]string{driver + "/version": "version 7\n", dir + "/gpu.yaml": strings.ReplaceAll(gpuSpec, "DIR/driver", driver)} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ids := []*criapi.IDMapping{{HostId: 500000, Length: 65536}}
	p := d.runPod("mapped", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	})
	c := p.run(wantsDevices(containerConfig("c", "sleep", "1000"), "vendor.test/gpu=0"))
	checkGPU(t, c, "0:0")
	p.remove()
}

func TestDevicesThatCannotBeHadAreRefused(t *testing.T) {
	d, dir := cdiNode(t, map[string]string{
		"hooks.yaml":  "cdiVersion: 0.5.0\nkind: vendor.test/hook\ndevices:\n- name: h\n  containerEdits:\n    hooks: [{hookName: createContainer, path: /bin/x}]\n",
		"broken.json": "{", "gone.yaml": "cdiVersion: 0.5.0\nkind: vendor.test/gone\ndevices:\n- name: g\n  containerEdits:\n    deviceNodes: [{path: /dev/gone}]\n",
		"mount.yaml": "cdiVersion: 0.5.0\nkind: vendor.test/mount\ndevices:\n- name: m\n  containerEdits:\n    mounts: [{hostPath: /no/such/lib, containerPath: /lib/x}]\n",
		"a.yaml":     "cdiVersion: 0.5.0\nkind: vendor.test/two\ndevices: [{name: t}]\n", "b.yaml": "cdiVersion: 0.5.0\nkind: vendor.test/two\ndevices: [{name: t}]\n",
	})
	check := d.unchanged()
	p := d.runPod("good")
	cdi := func(names ...string) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) { wantsDevices(c, names...) }
	}
	device := func(host, container, permissions string) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) {
			c.Devices = []*criapi.Device{{HostPath: host, ContainerPath: container, Permissions: permissions}}
		}
	}
	d.refuses(t, []bad{
		p.badContainer("unknown", codes.InvalidArgument, cdi("vendor.test/gpu=0"), "CDI_devices[0].name", `"vendor.test/gpu=0"`, dir+"/none", dir, "broken.json"),
		p.badContainer("no name", codes.InvalidArgument, cdi("gpu0"), "CDI_devices[0].name", `"gpu0"`, "vendor.com/class=device"),
		p.badContainer("hook", codes.InvalidArgument, cdi("vendor.test/hook=h"), "CDI_devices[0].name", dir+"/hooks.yaml", "devices[0].containerEdits.hooks[0]", "/bin/x", "--disable-hooks"),
		p.badContainer("missing node", codes.InvalidArgument, cdi("vendor.test/gone=g"), "CDI_devices[0].name", dir+"/gone.yaml", "/dev/gone", "no such file"),
		p.badContainer("missing library", codes.InvalidArgument, cdi("vendor.test/mount=m"), "/lib/x", "/no/such/lib", "no such file"),
		p.badContainer("two files", codes.InvalidArgument, cdi("vendor.test/two=t"), dir+"/a.yaml", dir+"/b.yaml"),
		p.badContainer("permissions", codes.InvalidArgument, device("/dev/zero", "/dev/x", "rx"), "devices[0].permissions", `"rx"`),
		p.badContainer("no permissions", codes.InvalidArgument, device("/dev/zero", "/dev/x", ""), "devices[0].permissions"),
		p.badContainer("terminal", codes.InvalidArgument, device("/dev/zero", "/dev/pts/7", "r"), "devices[0].container_path", "/dev/pts/7"),
		p.badContainer("another null", codes.InvalidArgument, device("/dev/zero", "/dev/null", "r"), "devices[0].container_path", "/dev/null"),
		p.badContainer("device in a device", codes.InvalidArgument, func(c *criapi.ContainerConfig) {
			c.Devices = []*criapi.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/a", Permissions: "r"}, {HostPath: "/dev/zero", ContainerPath: "/dev/a/b", Permissions: "r"}}
		}, "/dev/a/b"),
	})
	p.remove()
	check()
}

// Bytes that are no text arrive as they are, whoever starts the program.
func TestEnvironmentOfBytes(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("bytes")
	const value = "\xff\x80=\n\x01 \xc3("
	config := containerConfig("c", "sleep", "1000")
	config.Envs = []*criapi.KeyValue{{Key: "BYTES", Value: []byte(value)}, {Key: "\u00e4 b", Value: nil}}
	now, config2 := p.run(config), containerConfig("later", "sleep", "1000")
	d.refuses(t, []bad{
		p.badContainer("zero byte", codes.InvalidArgument, func(c *criapi.ContainerConfig) {
			c.Envs = []*criapi.KeyValue{{Key: "OK"}, {Key: "ZERO", Value: []byte("a\x00b")}}
		}, "envs[1].value", "ZERO", "zero byte"),
		p.badContainer("equals sign", codes.InvalidArgument, func(c *criapi.ContainerConfig) { c.Envs = []*criapi.KeyValue{{Key: "A=B"}} }, "envs[0].key", "A=B"),
	})
	config2.Envs = config.Envs
	later := p.create(config2)
	d.restart()
	later.start()
	for name, c := range map[string]*container{"started before the restart": now, "created before the restart": later} {
		if got := c.exec("sh", "-c", `printf %s "$BYTES"`); got != value {
			t.Errorf("%s: exec sees %q, want %q", name, got, value)
		}
		if got := readFile(t, "/proc/"+strconv.Itoa(c.pid())+"/environ"); !strings.Contains(got, "BYTES="+value+"\x00") || !strings.Contains(got, "\u00e4 b=\x00") {
			t.Errorf("%s: environment %q", name, got)
		}
	}
	p.remove()
	check()
}

// What the kernel or we refuse is the fault of the request, which is told which
// part of it. The machine has the hugetlb controller and perhaps no other.
func TestLimitsThatCannotBeAreRefused(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("limits")
	good := p.run(containerConfig("good", "sleep", "1000"))
	limits := func(r *criapi.LinuxContainerResources) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) { c.Linux.Resources = r }
	}
	unified := func(file, value string) *criapi.LinuxContainerResources {
		return &criapi.LinuxContainerResources{Unified: map[string]string{file: value}}
	}
	var table []bad
	for name, c := range map[string]struct {
		r    *criapi.LinuxContainerResources
		says []string // first the field within the limits
	}{
		"unknown file":       {unified("hugetlb.none.max", "1"), []string{`unified[hugetlb.none.max] "1": `, "no such file"}},
		"unknown controller": {unified("nothing.max", "1"), []string{`unified[nothing.max] "1": `, "not a file of a cgroup controller"}},
		"file of the core":   {unified("cgroup.procs", "1"), []string{`unified[cgroup.procs] "1": `}},
		"file elsewhere":     {unified("../hugetlb.2MB.max", "1"), []string{`unified[../hugetlb.2MB.max] "1": `}},
		"value of no sense":  {unified("hugetlb.2MB.max", "much"), []string{`unified[hugetlb.2MB.max] "much": `, "invalid argument"}},
		"page size":          {&criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: "3MB", Limit: 1}}}, []string{`hugepage_limits[3MB] "1": this node has no pages of 3MB`}},
	} {
		table = append(table, p.badContainer("create: "+name, codes.InvalidArgument, limits(c.r), append([]string{" config.linux.resources." + c.says[0]}, c.says[1:]...)...))
		table = append(table, bad{"update: " + name, func() error {
			_, err := d.UpdateContainerResources(d.context(), &criapi.UpdateContainerResourcesRequest{ContainerId: good.id, Linux: c.r})
			return err
		}, codes.InvalidArgument, append([]string{" linux." + c.says[0]}, c.says[1:]...)})
	}
	d.refuses(t, table)

	set := &criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}, {PageSize: "3MB"}}, Unified: map[string]string{"hugetlb.2MB.rsvd.max": "2097152"}}
	if _, err := d.UpdateContainerResources(d.context(), &criapi.UpdateContainerResourcesRequest{ContainerId: good.id, Linux: set}); err != nil {
		t.Fatal(err)
	}
	// One bad part, and nothing of the rest happens.
	half := &criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB", Limit: 8 << 20}}, Unified: map[string]string{"hugetlb.1GB.max": "x"}}
	if _, err := d.UpdateContainerResources(d.context(), &criapi.UpdateContainerResourcesRequest{ContainerId: good.id, Linux: half}); err == nil {
		t.Error("half an update was accepted")
	}
	if got := good.exec("sh", "-c", "cd /sys/fs/cgroup; cat hugetlb.2MB.max hugetlb.2MB.rsvd.max"); got != "4194304\n2097152\n" {
		t.Errorf("limits inside: %q", got)
	}
	p.remove()
	check()
}
