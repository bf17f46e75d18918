package capability

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if os.Getenv(asContainer) != "" {
		becomeContainer()
	}
	leakcheck.Main(m)
}

const every = 1<<41 - 1 // capabilities 0 to 40

func bit(c int) uint64 { return 1 << uint(c) }

func TestResolveFollowsTheRequest(t *testing.T) {
	const def = 0xa80425fb // the well-known mask of the 14
	netAdmin, chown := bit(unix.CAP_NET_ADMIN), bit(unix.CAP_CHOWN)
	for name, c := range map[string]struct {
		add, drop, ambient []string
		privileged         bool
		limit              uint64
		want, lasting      uint64
	}{
		"nothing asked":           {want: def},
		"add":                     {add: []string{"NET_ADMIN"}, want: def | netAdmin},
		"add with prefix, lower":  {add: []string{"cap_net_admin"}, want: def | netAdmin},
		"drop":                    {drop: []string{"CHOWN"}, want: def &^ chown},
		"drop wins over add":      {add: []string{"NET_ADMIN"}, drop: []string{"NET_ADMIN"}, want: def},
		"add all":                 {add: []string{"ALL"}, want: every},
		"add all but one":         {add: []string{"all"}, drop: []string{"CAP_CHOWN"}, want: every &^ chown},
		"drop all":                {drop: []string{"ALL"}},
		"drop all, add one":       {add: []string{"CHOWN"}, drop: []string{"ALL"}, want: chown},
		"drop all beats add all":  {add: []string{"ALL"}, drop: []string{"ALL"}},
		"drop all and one again":  {add: []string{"CHOWN"}, drop: []string{"ALL", "CHOWN"}},
		"ambient is in all sets":  {ambient: []string{"NET_ADMIN"}, want: def | netAdmin, lasting: netAdmin},
		"ambient after drop all":  {ambient: []string{"CHOWN"}, drop: []string{"ALL"}, want: chown, lasting: chown},
		"drop wins over ambient":  {ambient: []string{"NET_ADMIN"}, drop: []string{"NET_ADMIN"}, want: def},
		"ambient all":             {ambient: []string{"ALL"}, want: every, lasting: every},
		"privileged":              {privileged: true, want: every},
		"privileged ignores drop": {privileged: true, drop: []string{"ALL"}, want: every},
		"privileged with ambient": {privileged: true, ambient: []string{"CHOWN"}, want: every, lasting: chown},
		"all is all of the limit": {add: []string{"ALL"}, limit: 0xff, want: 0xff},
		"default within limit":    {limit: 0xff, want: def & 0xff},
		"drop beyond the limit":   {drop: []string{"BPF"}, limit: 0xff, want: def & 0xff},
	} {
		limit := c.limit
		if limit == 0 {
			limit = every
		}
		got, err := ResolveWithin(limit, c.add, c.drop, c.ambient, c.privileged)
		want := Sets{Bounding: c.want, Effective: c.want, Permitted: c.want, Inheritable: c.lasting, Ambient: c.lasting}
		if err != nil || got != want {
			t.Errorf("%s: got %x, %v; want %x", name, got, err, want)
		}
	}
}

func TestBadNamesAreNamed(t *testing.T) {
	for want, resolve := range map[string]func() (Sets, error){
		`add_capabilities "NETADMIN": unknown capability`: func() (Sets, error) {
			return ResolveWithin(every, []string{"NETADMIN"}, nil, nil, true)
		},
		`drop_capabilities "CAP_ALL": unknown capability`: func() (Sets, error) {
			return ResolveWithin(every, nil, []string{"CAP_ALL"}, nil, false)
		},
		`add_ambient_capabilities "": unknown capability`: func() (Sets, error) {
			return ResolveWithin(every, nil, nil, []string{""}, false)
		},
		`add_capabilities "BPF": neither the kernel nor this runtime has it`: func() (Sets, error) {
			return ResolveWithin(0xff, []string{"BPF"}, nil, nil, false)
		},
	} {
		if got, err := resolve(); err == nil || err.Error() != want {
			t.Errorf("got %x, error %v; want error %s", got, err, want)
		}
	}
}

func TestNamesAndBitsAreInverse(t *testing.T) {
	kernel, err := Kernel()
	if err != nil {
		t.Fatal(err)
	}
	var back uint64
	for _, name := range Names(kernel) {
		one, err := Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		back |= one
	}
	if back != kernel {
		t.Fatalf("names of %x parse to %x", kernel, back)
	}
	if n := len(Names(Default)); n != 14 {
		t.Fatalf("default set has %d names, want 14", n)
	}
}

// The kernel's own account of a process that was given the sets, as user 1000:
// with the old rule (add also inheritable) CapInh would not be zero.
func TestKernelShowsTheSetsAfterExec(t *testing.T) {
	for name, c := range map[string]struct {
		add, ambient []string
		want         string
	}{
		"add does not outlive execve of another user": {
			add:  []string{"NET_ADMIN"},
			want: "CapInh 0 CapPrm 0 CapEff 0 CapBnd a80435fb CapAmb 0",
		},
		"ambient does": {
			ambient: []string{"NET_ADMIN"},
			want:    "CapInh 1000 CapPrm 1000 CapEff 1000 CapBnd a80435fb CapAmb 1000",
		},
	} {
		sets, err := Resolve(c.add, nil, c.ambient, false)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{fmt.Sprintf("%s=%d,%d,%d,%d", asContainer, sets.Bounding, sets.Permitted, sets.Inheritable, sets.Ambient)}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%s: child says %q, %v; want %q", name, got, err, c.want)
		}
	}
}

const asContainer = "CAPABILITY_TEST_SETS"

// becomeContainer applies the sets of the environment as a container's first
// program gets them, runs cat, and reports the lines of its status.
func becomeContainer() {
	runtime.LockOSThread()
	var sets [4]uint64
	for i, s := range strings.Split(os.Getenv(asContainer), ",") {
		sets[i], _ = strconv.ParseUint(s, 10, 64)
	}
	must(unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0))
	for c := range 41 {
		if sets[0]&bit(c) == 0 {
			must(unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0))
		}
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, 1000, 1000, 1000); errno != 0 {
		must(errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		data[i] = unix.CapUserData{Effective: uint32(sets[1] >> (32 * i)), Permitted: uint32(sets[1] >> (32 * i)), Inheritable: uint32(sets[2] >> (32 * i))}
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		must(errno)
	}
	for _, c := range capability.ListKnown() {
		if sets[3]&bit(int(c)) != 0 {
			must(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0))
		}
	}
	must(unix.Exec("/bin/sh", []string{"sh", "-c", `while read k v; do case $k in Cap*) printf '%s %x ' ${k%:} 0x$v;; esac; done </proc/self/status`}, nil))
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
