package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"cri-mini/hack/tools/vm/wire"
)

// machine is one run of QEMU.
type machine struct {
	process *exec.Cmd
	ended   chan error // what Wait returned

	port    net.Conn
	console *console
	results *os.File // the disk of results
}

// bootTime is how long a machine may take until it is ready, on a busy host.
const bootTime = 3 * time.Minute

func (o *options) runMachine(ctx context.Context, e *emulator, n *node) (int, error) {
	m, err := o.start(e, n)
	if err != nil {
		return statusBroken, err
	}
	defer m.end()
	status, err := o.converse(ctx, m)
	switch {
	case err == nil:
		return status, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return statusTimeout, fmt.Errorf("not ended after %s", o.timeout)
	case ctx.Err() != nil:
		return 128 + int(syscall.SIGINT), errors.New("interrupted")
	default:
		m.end() // all that the console has to say
		return statusBroken, fmt.Errorf("%w; the console's last lines:\n%s", err, m.console.tail())
	}
}

// start starts QEMU with files that have no name and sockets that have no
// address: nothing has to be taken away, whatever happens.
func (o *options) start(e *emulator, n *node) (*machine, error) {
	m := &machine{ended: make(chan error, 1), console: new(console)}
	if o.console {
		m.console.show = os.Stderr
	}
	inherited := &inheritance{}
	defer inherited.close()
	arguments := o.hardware(e, n)

	initial := inherited.file(func(f *os.File) error { return writeInitial(f, o.guest, n.modules()) })
	payload := inherited.file(func(f *os.File) error { return writePayload(f, o.in) })
	results := inherited.file(func(f *os.File) (err error) {
		// Another opening, which is not closed with the one that QEMU gets.
		if m.results, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
			return err
		}
		return f.Truncate(resultsSize)
	})
	arguments = append(arguments, "-initrd", initial,
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file="+n.disk(),
		"-drive", "if=virtio,format=raw,readonly=on,file="+payload,
		"-drive", "if=virtio,format=raw,cache=unsafe,file="+results,
	)
	if o.disk != "" { // after the others, whose names are known to the guest
		arguments = append(arguments, "-drive", drive(o.disk))
	}
	arguments = append(arguments, "-device", "virtio-serial",
		"-chardev", fmt.Sprintf("socket,id=port,fd=%d", inherited.socket(&m.port)),
		"-device", "virtserialport,chardev=port,name="+wire.Port)
	if inherited.err != nil {
		return nil, inherited.err
	}

	command := append(loader(e.dir, "qemu-system-x86_64"), filepath.Join(e.dir, "usr/bin/qemu-system-x86_64"))
	command = append(command, arguments...)
	m.process = exec.Command(command[0], command[1:]...)
	m.process.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(e.dir, libraries, "qemu"))
	m.process.ExtraFiles = inherited.files
	m.process.Stdout, m.process.Stderr = m.console, m.console
	// An interrupt from the terminal is for this program, which ends QEMU; and
	// QEMU does not outlive it.
	m.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return m, m.launch()
}

const resultsSize = 4 << 30 // sparse

// launch starts the process from a thread that lives as long as this program:
// the kernel sends Pdeathsig when the starting thread ends.
func (m *machine) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := m.process.Start()
		started <- err
		if err == nil {
			m.ended <- m.process.Wait()
			close(m.ended)
		}
	}()
	return <-started
}

func (m *machine) end() {
	m.process.Process.Kill()
	<-m.ended
	m.port.Close()
	m.results.Close()
}

// hardware is what does not depend on the run's files.
func (o *options) hardware(e *emulator, n *node) []string {
	modules := "capability,landlock,yama"
	if o.security != "" {
		modules += "," + o.security
	}
	// Whatever makes a kernel slow under emulation and serves no test is off.
	kernel := []string{
		"console=ttyS0", "quiet", "panic=-1", "mitigations=off", "nokaslr", "init_on_alloc=0", "audit=0", "nowatchdog",
		// On a busy host the timer of an emulated machine may come too late for the
		// kernel's check of it, which would be a panic.
		"no_timer_check", "tsc=reliable", "rcupdate.rcu_expedited=1", "net.ifnames=0", "lsm=" + modules,
	}
	if o.init != "" {
		kernel = append(kernel, wire.InitArgument+o.init)
	}
	if o.arguments != "" {
		kernel = append(kernel, o.arguments)
	}
	accelerator, processor := "tcg,thread=multi,tb-size=512", "max,la57=off"
	if o.kvm {
		accelerator, processor = "kvm", "host"
	}
	return []string{
		"-L", filepath.Join(e.dir, "usr/share/qemu"), "-L", filepath.Join(e.dir, "usr/share/seabios"),
		"-accel", accelerator, "-machine", "q35,usb=off,vmport=off,hpet=on", "-cpu", processor,
		"-smp", fmt.Sprint(o.cpus), "-m", o.memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", n.kernel(), "-append", strings.Join(kernel, " "),
	}
}

// inheritance collects what QEMU gets from this program. After the first error
// it does nothing.
type inheritance struct {
	files []*os.File
	err   error
}

func (i *inheritance) add(f *os.File) int {
	i.files = append(i.files, f)
	return 2 + len(i.files) // after standard input, output and error
}

// file makes an unnamed file with contents, and returns the name that QEMU may
// call it.
func (i *inheritance) file(write func(*os.File) error) string {
	if i.err != nil {
		return ""
	}
	var f *os.File
	if f, i.err = unnamed(); i.err != nil {
		return ""
	}
	number := i.add(f)
	i.err = write(f)
	return fmt.Sprintf("/proc/self/fd/%d", number)
}

// socket makes a pair, of which QEMU gets one end by number.
func (i *inheritance) socket(ours *net.Conn) int {
	if i.err != nil {
		return 0
	}
	var pair [2]int
	if pair, i.err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); i.err != nil {
		return 0
	}
	number := i.add(os.NewFile(uintptr(pair[1]), "socket"))
	mine := os.NewFile(uintptr(pair[0]), "socket")
	defer mine.Close()
	*ours, i.err = net.FileConn(mine)
	return number
}

func (i *inheritance) close() {
	for _, f := range i.files {
		f.Close()
	}
}

// converse has the guest run the command and returns its status.
func (o *options) converse(ctx context.Context, m *machine) (int, error) {
	begun := time.Now()
	// Whoever waits for the guest wakes up when there is nothing to wait for.
	stop := context.AfterFunc(ctx, func() { m.port.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	late := time.AfterFunc(bootTime, func() { m.port.SetDeadline(time.Unix(1, 0)) })
	defer late.Stop()
	reports := json.NewDecoder(m.port)
	if _, err := readReport(reports); err != nil {
		return 0, fmt.Errorf("the guest did not become ready: %w", err)
	}
	late.Stop()
	say("Linux %s is up after %.1f s", o.kernel, time.Since(begun).Seconds())

	request := wire.Request{Args: o.command, Env: o.env, Out: o.out != "", Disk: o.disk != ""}
	if err := json.NewEncoder(m.port).Encode(request); err != nil {
		return 0, err
	}
	status, err := follow(reports, os.Stdout, os.Stderr)
	if err != nil || o.out == "" {
		return status, err
	}
	return status, readResults(m.results, o.out)
}

// follow writes the command's output until it ends.
func follow(reports *json.Decoder, stdout, stderr io.Writer) (int, error) {
	for {
		report, err := readReport(reports)
		if err != nil {
			return 0, err
		}
		if _, err := stdout.Write(report.Stdout); err != nil {
			return 0, err
		}
		if _, err := stderr.Write(report.Stderr); err != nil {
			return 0, err
		}
		if report.Ended {
			return report.Status, nil
		}
	}
}

func readReport(reports *json.Decoder) (wire.Report, error) {
	var report wire.Report
	err := reports.Decode(&report)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET):
		return report, errors.New("the machine ended by itself")
	case err == nil && report.Error != "":
		return report, fmt.Errorf("guest: %s", report.Error)
	}
	return report, err
}

// console keeps the end of what the kernel and QEMU say.
type console struct {
	last bytes.Buffer
	show io.Writer // nil for nobody
}

const consoleSize = 16 << 10

func (c *console) Write(b []byte) (int, error) {
	if c.show != nil {
		c.show.Write(b)
	}
	c.last.Write(b)
	if extra := c.last.Len() - consoleSize; extra > 0 {
		c.last.Next(extra)
	}
	return len(b), nil
}

func (c *console) tail() string {
	lines := strings.Split(strings.TrimSpace(c.last.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
