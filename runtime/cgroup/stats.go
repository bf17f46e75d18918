package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// Stats reads what the group used; asked are the CPU shares that it was given,
// 0 when nobody knows. The library's reader answers 0 for what it could not
// read, which looks like a container that was reset; it also takes twice as
// long where there is a memory controller.
func (g *Group) Stats(asked uint64) (spec.Stats, error) {
	s := spec.Stats{At: time.Now()}
	fail := func(err error) (spec.Stats, error) {
		return spec.Stats{}, fmt.Errorf("stats of cgroup %s: %w", g.Path, err)
	}
	// One look-up of the long path; the files are opened below it.
	dir, err := unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(dir)
	r := readers.Get().(*reader)
	defer readers.Put(r)
	r.dir = dir
	for _, read := range []func(*spec.Stats) error{
		func(s *spec.Stats) error { return r.cpu(s, asked) }, r.memory, r.swap, r.pids, r.processes, r.io, r.hugetlb,
	} {
		if err := read(&s); err != nil {
			return fail(err)
		}
	}
	s.CPUPressure = r.pressure("cpu.pressure")
	s.MemoryPressure = r.pressure("memory.pressure")
	s.IOPressure = r.pressure("io.pressure")
	return s, nil
}

// CPUTime is the processor time that the group used, in nanoseconds.
func (g *Group) CPUTime() (uint64, error) {
	text, err := readFile(g.file("cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("stats of cgroup %s: %w", g.Path, err)
	}
	var s spec.Stats
	parseCPU(text, &s.CPU)
	return s.CPU.Nanos, nil
}

// OOMKills counts the processes that the kernel killed here or below for want
// of memory. Without a memory controller it never does.
func (g *Group) OOMKills() (uint64, error) {
	text, err := readFile(g.file("memory.events"))
	if missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", g.Path, err)
	}
	var m spec.Memory
	parseMemoryEvents(text, &m)
	return m.OOMKills, nil
}

// missing is the error of a file that the machine's controllers do not have.
func missing(err error) bool { return errors.Is(err, unix.ENOENT) }

// reader reads the files of one group. Its buffer is used again, for a list of
// a hundred pods reads more than a thousand files.
type reader struct {
	dir    int
	buffer []byte
}

var readers = sync.Pool{New: func() any { return &reader{buffer: make([]byte, 16<<10)} }}

// read gives the text of a file of values. The kernel gives such a file in one
// piece, so the first read that does not fill the buffer is the last.
func (r *reader) read(name string) (string, error) { return r.text(name, false) }

// list gives the text of a file of processes or threads, which comes in pieces.
func (r *reader) list(name string) (string, error) { return r.text(name, true) }

func (r *reader) text(name string, pieces bool) (string, error) {
	fd, err := unix.Openat(r.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fileError{name, err}
	}
	defer unix.Close(fd)
	for used := 0; ; {
		n, err := unix.Read(fd, r.buffer[used:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", &fileError{name, err}
		case n == 0:
			return string(r.buffer[:used]), nil
		default:
			used += n
			if !pieces && used < len(r.buffer) {
				return string(r.buffer[:used]), nil
			}
		}
		if used == len(r.buffer) {
			r.buffer = append(r.buffer, make([]byte, len(r.buffer))...)
		}
	}
}

// optional is read for files that a kernel or machine may lack.
func (r *reader) optional(name string) (text string, there bool, err error) {
	text, err = r.read(name)
	if missing(err) {
		return "", false, nil
	}
	return text, err == nil, err
}

func (r *reader) number(name string) (n uint64, limited bool, err error) {
	text, err := r.read(name)
	if err != nil {
		return 0, false, err
	}
	return parseNumber(name, text)
}

func (r *reader) optionalNumber(name string) (*uint64, error) {
	n, limited, err := r.number(name)
	if missing(err) || err == nil && !limited {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &n, nil
}

func (r *reader) cpu(s *spec.Stats, asked uint64) error {
	text, err := r.read("cpu.stat")
	if err != nil {
		return err // every group has it, controller or not
	}
	parseCPU(text, &s.CPU)
	weight, there, err := r.optional("cpu.weight")
	if err != nil || !there {
		return err
	}
	limits := &spec.CPULimits{}
	n, _, err := parseNumber("cpu.weight", weight)
	if err != nil {
		return err
	}
	limits.Shares = sharesOf(n, asked)
	text, err = r.read("cpu.max")
	if err != nil {
		return err
	}
	if limits.Quota, limits.Period, err = parseMax(text); err != nil {
		return err
	}
	s.CPU.Limits = limits
	return nil
}

func (r *reader) memory(s *spec.Stats) error {
	usage, _, err := r.number("memory.current")
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	m := &spec.Memory{Usage: usage}
	if m.Limit, _, err = r.number("memory.max"); err != nil {
		return err
	}
	// Not limited is said of a reservation of everything.
	if m.Reservation, _, err = r.number("memory.min"); err != nil && !missing(err) {
		return err
	}
	if m.Peak, err = r.optionalNumber("memory.peak"); err != nil {
		return err
	}
	for _, file := range []struct {
		name  string
		parse func(string, *spec.Memory)
	}{{"memory.stat", parseMemory}, {"memory.events", parseMemoryEvents}} {
		text, err := r.read(file.name)
		if err != nil {
			return err
		}
		file.parse(text, m)
	}
	s.Memory = m
	return nil
}

func (r *reader) swap(s *spec.Stats) error {
	usage, _, err := r.number("memory.swap.current")
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	limit, limited, err := r.number("memory.swap.max")
	s.Swap = &spec.Swap{Usage: usage, Limit: limit, Limited: limited}
	return err
}

func (r *reader) pids(s *spec.Stats) error {
	current, _, err := r.number("pids.current")
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	limit, _, err := r.number("pids.max")
	s.Pids = &spec.Pids{Current: current, Limit: limit}
	return err
}

func (r *reader) io(s *spec.Stats) error {
	text, there, err := r.optional("io.stat")
	if err != nil || !there {
		return err
	}
	s.IO = parseIO(text)
	return nil
}

func (r *reader) hugetlb(s *spec.Stats) error {
	for _, size := range pageSizes() {
		usage, _, err := r.number("hugetlb." + size + ".current")
		if missing(err) {
			return nil // of one size all, of all sizes one: it is one controller
		}
		if err != nil {
			return err
		}
		s.Hugetlb = append(s.Hugetlb, spec.Hugetlb{PageSize: size, Usage: usage})
	}
	return nil
}

// pressure is nil where the kernel does not account it: without PSI there is
// no file, with PSI switched off at boot reading fails.
func (r *reader) pressure(file string) *spec.Pressure {
	text, err := r.read(file)
	if err != nil {
		return nil
	}
	return parsePressure(text)
}

// processes counts those of the group and of all below it. Only a group with
// groups below has to be walked.
func (r *reader) processes(s *spec.Stats) error {
	text, _, err := r.optional("cgroup.stat")
	if err != nil {
		return err
	}
	below := uint64(0)
	eachKey(text, func(key string, n uint64) {
		if key == "nr_descendants" {
			below = n
		}
	})
	if below > 0 {
		pids, err := procsBelow(r.dir)
		s.Processes = uint64(len(pids))
		return err
	}
	text, err = r.list("cgroup.procs")
	if missing(err) {
		return nil
	}
	s.Processes = uint64(strings.Count(text, "\n"))
	return err
}

// Threads counts the threads of the group and of all below it.
func (g *Group) Threads() (uint64, error) {
	n := uint64(0)
	err := walk(g.dir, func(dir int, name string) error {
		r := readers.Get().(*reader)
		defer readers.Put(r)
		r.dir = dir
		text, err := r.list(name + "/cgroup.threads")
		n += uint64(strings.Count(text, "\n"))
		return err
	})
	if gone(err) {
		return n, nil
	}
	return n, err
}

// pageSizes are the sizes of huge pages that the machine has, in the words of
// its control files.
var pageSizes = sync.OnceValue(func() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var sizes []string
	for _, e := range entries {
		text, _ := strings.CutSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB")
		if kilobytes, err := strconv.ParseUint(text, 10, 64); err == nil {
			sizes = append(sizes, pageSize(kilobytes))
		}
	}
	return sizes
})

func pageSize(kilobytes uint64) string {
	units := []string{"KB", "MB", "GB"}
	for kilobytes >= 1024 && len(units) > 1 {
		kilobytes, units = kilobytes/1024, units[1:]
	}
	return strconv.FormatUint(kilobytes, 10) + units[0]
}
