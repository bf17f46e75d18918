package cgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20

// useHugePages maps one page, which is reserved, then one more, and then one
// that is not reserved and touched.
func useHugePages() {
	mapped := func(flags int) ([]byte, error) {
		return unix.Mmap(-1, 0, hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|flags)
	}
	page, err := mapped(0)
	if err == nil {
		page[0] = 1
	}
	fmt.Printf("first=%v ", err)
	_, err = mapped(0)
	fmt.Printf("second=%v ", err)
	if page, err = mapped(unix.MAP_NORESERVE); err == nil {
		err = touch(page)
	}
	fmt.Printf("unreserved=%v", err)
}

func touch(page []byte) (err error) {
	debug.SetPanicOnFault(true)
	defer func() {
		if recover() != nil {
			err = errors.New("bus error")
		}
	}()
	page[0] = 1
	return nil
}

// reserveHugePages gives the machine n pages more until the end of the test.
func reserveHugePages(t *testing.T, n int) {
	t.Helper()
	const file = "/proc/sys/vm/nr_hugepages"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Skip("kernel feature missing: huge pages")
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, text, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(file, []byte(strconv.Itoa(before+n)), 0); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(before+n) {
		t.Skip("kernel feature missing: huge pages (the memory is too much in pieces to reserve them)")
	}
}

func TestKernelKeepsTheLimitOfHugePages(t *testing.T) {
	if !slices.Contains(real.Controllers(), "hugetlb") {
		t.Skip(&ErrControllerMissing{Controller: "hugetlb", Field: "hugepage_limits", Value: "2MB"})
	}
	reserveHugePages(t, 4)
	place := ownPlace(t)
	for name, c := range map[string]struct {
		limit uint64
		want  string
	}{
		"none":        {0, "first=cannot allocate memory second=cannot allocate memory unreserved=bus error"},
		"one page":    {hugePage, "first=<nil> second=cannot allocate memory unreserved=bus error"},
		"two pages":   {2 * hugePage, "first=<nil> second=<nil> unreserved=bus error"},
		"three pages": {3 * hugePage, "first=<nil> second=<nil> unreserved=<nil>"},
	} {
		g := create(t, place+"/"+strings.ReplaceAll(name, " ", "-"), Resources{AllowAllDevices: true, HugepageLimits: []HugepageLimit{{"2MB", c.limit}}})
		for _, file := range []string{"hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"} {
			if got, err := g.read(file); err != nil || got != strconv.FormatUint(c.limit, 10) {
				t.Errorf("%s: %s is %q, %v; want %d", name, file, got, err, c.limit)
			}
		}
		cmd := start(t, g, "huge")
		err := cmd.Wait()
		if got := cmd.Stdout.(*strings.Builder).String(); err != nil || got != c.want {
			t.Errorf("%s: program says %q, %v; want %q", name, got, err, c.want)
		}
		remove(t, g)
	}
}
