// Command run puts the upstream suite to a real daemon and judges the outcome.
// It works in an enclosure, so the machine keeps its mounts, addresses and ports
// whatever the daemon does, and what the daemon leaves behind is easy to see.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"cri-mini/test/critest/internal/enclosure"
	"cri-mini/test/critest/internal/testimage"
)

type options struct {
	daemon string // the program under test
	suite  string // the suite's test binary
	output string // where logs and the report go
	lists  string // the directory of passing.txt and skips.txt
	driver string // of control groups
	focus  string
	totals string
	update bool
	// websocket runs the specs of exec, attach and port-forward over WebSocket.
	websocket bool
	seed      int64 // of the order

	limit          time.Duration
	prepare, reuse bool

	repository string
}

func main() {
	var o options
	flag.StringVar(&o.daemon, "daemon", "", "`program` to test (default: bin/cri-mini of the repository)")
	flag.StringVar(&o.output, "output", "", "`directory` for logs and the report (default: .cache/critest)")
	flag.StringVar(&o.lists, "lists", "", "`directory` of passing.txt and skips.txt (default: test/critest)")
	flag.StringVar(&o.driver, "cgroup-driver", "cgroupfs", "`driver` of control groups: cgroupfs, or systemd on a machine that is all for this run: systemd is not found in an enclosure")
	flag.StringVar(&o.focus, "focus", "", "run only the specs whose name matches this `expression`")
	flag.StringVar(&o.totals, "totals", "", "`file` to write \"passed failed skipped\" to")
	flag.BoolVar(&o.update, "update", false, "rewrite passing.txt from this run")
	flag.BoolVar(&o.websocket, "websocket", false, "run the streaming specs, over WebSocket in place of SPDY")
	flag.DurationVar(&o.limit, "timeout", 12*time.Minute, "`time` that the suite may take")
	flag.BoolVar(&o.prepare, "prepare", false, "only build what a run needs")
	flag.BoolVar(&o.reuse, "reuse", false, "build nothing: all is there")
	flag.Int64Var(&o.seed, "seed", 0, "`number` that gives the order of the specs (default: another one each time)")
	flag.Parse()
	if o.websocket && o.focus == "" {
		o.focus = "Streaming runtime should support streaming interfaces"
	}
	if o.seed == 0 {
		o.seed = 1 + rand.Int64N(1_000_000)
	}

	status, err := 1, o.fill()
	switch {
	case err != nil:
	case o.prepare:
		if err = o.build(); err == nil {
			status = 0
		}
	case o.driver == "cgroupfs":
		status, err = enclosure.Main(o.build, o.inside)
	default:
		status, err = o.open()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "critest: %v\n", err)
		status = 1
	}
	os.Exit(status)
}

// open is a run without an enclosure.
func (o *options) open() (int, error) {
	if err := o.build(); err != nil {
		return 1, err
	}
	work, err := os.MkdirTemp("", "critest-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(work)
	return o.inside(work)
}

// fill puts defaults in place of what was not given.
func (o *options) fill() (err error) {
	if o.repository, err = testimage.Repository(); err != nil {
		return err
	}
	o.suite = filepath.Join(o.repository, ".cache/bin/critest")
	for option, value := range map[*string]string{
		&o.daemon: "bin/cri-mini",
		&o.output: ".cache/critest",
		&o.lists:  "test/critest",
	} {
		if *option == "" {
			*option = filepath.Join(o.repository, value)
		}
		if *option, err = filepath.Abs(*option); err != nil {
			return err
		}
	}
	return nil
}

// build makes what the run needs, where there is still a network.
func (o *options) build() error {
	if _, err := os.Stat(o.daemon); err != nil {
		return fmt.Errorf("daemon: %w (make build makes it)", err)
	}
	if o.reuse {
		return os.MkdirAll(o.output, 0o755)
	}
	say("building the suite")
	build := exec.Command("go", "test", "-c", "-o", o.suite, ".")
	build.Dir, build.Stderr = filepath.Join(o.repository, "test/critest"), os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the suite: %w", err)
	}
	say("building the programs of the images")
	if _, err := testimage.BuildPrograms(o.repository); err != nil {
		return err
	}
	return os.MkdirAll(o.output, 0o755)
}

// say tells what is being done.
func say(format string, arguments ...any) {
	fmt.Printf("critest: "+format+"\n", arguments...)
}
