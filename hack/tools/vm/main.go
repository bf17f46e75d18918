// Command vm runs a command as root of a virtual machine with a current kernel
// and pure cgroup v2. hack/vm calls it.
//
// An archive is Debian's, asked through a configuration of apt beside the
// machine's own. A node is what is made of it once and kept in the cache: a
// kernel, the modules that reach its disks, a root file system. A machine is one
// run of QEMU with a node: the node's disk, whose changes are thrown away, a
// disk with the payload, a disk for results, and serial ports (package wire).
//
// Nothing is installed, no file has a name while the machine runs, and QEMU ends
// with this program however that ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit statuses besides the command's own, as timeout(1) has them.
const (
	statusTimeout = 124
	statusBroken  = 125
)

type options struct {
	cache, guest string
	mirror       string
	kernel       string
	security     string
	init         string
	cpus         int
	memory       string
	in           list
	out          string
	disk         string
	env          list
	timeout      time.Duration
	kvm          bool
	console      bool
	arguments    string // more for the kernel
	command      []string
}

type list []string

func (l *list) String() string         { return fmt.Sprint(*l) }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func main() {
	o := parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	status, err := o.run(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "vm: %v\n", err)
	}
	os.Exit(status)
}

func parse() *options {
	o := new(options)
	flag.StringVar(&o.cache, "cache", ".cache/vm", "`directory` for what is taken from Debian's archive")
	flag.StringVar(&o.guest, "guest", ".cache/bin/vm-guest", "the guest's first `program`")
	flag.StringVar(&o.mirror, "mirror", "", "`URL` of Debian's archive (default: the one in this machine's apt sources)")
	flag.StringVar(&o.kernel, "kernel", "current", "`version` of Linux: current, 6.12 or 6.1")
	flag.StringVar(&o.security, "lsm", "", "a security `module` to enable: apparmor")
	flag.StringVar(&o.init, "init", "", "the first `program`: systemd (default: one that only runs the command)")
	flag.IntVar(&o.cpus, "cpus", 2, "`number` of processors")
	flag.StringVar(&o.memory, "memory", "2G", "`size` of memory")
	flag.Var(&o.in, "in", "`file or directory` to have in the guest's working directory, /in; PATH:NAME gives it another name (repeatable)")
	flag.StringVar(&o.out, "out", "", "`directory` that gets what the command leaves in /out")
	flag.StringVar(&o.disk, "disk", "", "`file` of a disk that keeps what it gets, at /disk; made when it is not there")
	flag.Var(&o.env, "env", "`NAME=VALUE` for the command's environment (repeatable)")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "end the machine after this `time`, with status 124")
	flag.BoolVar(&o.kvm, "kvm", false, "use /dev/kvm instead of emulation")
	flag.BoolVar(&o.console, "console", false, "show the guest's console on standard error")
	flag.StringVar(&o.arguments, "append", "", "more kernel `arguments`")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: hack/vm [OPTION...] -- COMMAND [ARGUMENT...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	o.command = flag.Args()
	return o
}

func (o *options) check() error {
	if len(o.command) == 0 {
		return errors.New("no command (-help explains)")
	}
	if _, known := suites[o.kernel]; !known {
		return fmt.Errorf("-kernel %q: not one of current, 6.12, 6.1", o.kernel)
	}
	if o.security != "" && o.security != "apparmor" {
		return fmt.Errorf("-lsm %q: not apparmor", o.security)
	}
	if o.init != "" && o.init != "systemd" {
		return fmt.Errorf("-init %q: not systemd", o.init)
	}
	if o.cpus < 1 {
		return fmt.Errorf("-cpus %d: less than one", o.cpus)
	}
	if o.kvm {
		kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("-kvm: %w", err)
		}
		return kvm.Close()
	}
	return nil
}

// run returns the status to end with. What the command said has been written.
func (o *options) run(ctx context.Context) (int, error) {
	if err := o.check(); err != nil {
		return statusBroken, err
	}
	c := &cache{dir: o.cache}
	emulator, err := c.emulator(ctx, o.mirror)
	if err != nil {
		return statusBroken, fmt.Errorf("prepare QEMU: %w", err)
	}
	node, err := c.node(ctx, o.mirror, o.kernel, o.init)
	if err != nil {
		return statusBroken, fmt.Errorf("prepare Linux %s: %w", o.kernel, err)
	}
	if err := o.makeKept(ctx); err != nil {
		return statusBroken, fmt.Errorf("-disk %s: %w", o.disk, err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return o.runMachine(ctx, emulator, node)
}

func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "vm: "+format+"\n", arguments...)
}
