// Command bench measures the life of pods, beside the same kernel operations
// issued bare.
//
// It starts a daemon in an enclosure, so no other pods, addresses or rules of
// the machine are in the way, and talks CRI to it as a kubelet would. It prints
// a table, and writes it as JSON for a later run to compare with.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cri-mini/test/critest/internal/enclosure"
	"cri-mini/test/critest/internal/instance"
	"cri-mini/test/critest/internal/registry"
	"cri-mini/test/critest/internal/testimage"
)

type options struct {
	daemon string
	output string
	pods   int
	idle   int
	jobs   int

	repository string
}

func main() {
	var o options
	flag.StringVar(&o.daemon, "daemon", "", "`program` to measure (default: bin/cri-mini of the repository)")
	flag.StringVar(&o.output, "output", "", "`directory` for log and result (default: .cache/bench)")
	flag.IntVar(&o.pods, "pods", 300, "pods one after the other")
	flag.IntVar(&o.jobs, "parallel", 16, "pods at a time, for the rate")
	flag.IntVar(&o.idle, "idle", 100, "idle pods, for memory and mounts")
	flag.Parse()

	status, err := 1, o.fill()
	if err == nil {
		status, err = enclosure.Main(o.build, o.inside)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		status = 1
	}
	os.Exit(status)
}

func (o *options) fill() (err error) {
	if o.repository, err = testimage.Repository(); err != nil {
		return err
	}
	for option, value := range map[*string]string{&o.daemon: "bin/cri-mini", &o.output: ".cache/bench"} {
		if *option == "" {
			*option = filepath.Join(o.repository, value)
		}
		if *option, err = filepath.Abs(*option); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) build() error {
	if _, err := os.Stat(o.daemon); err != nil {
		return fmt.Errorf("daemon: %w (make build makes it)", err)
	}
	if _, err := testimage.BuildPrograms(o.repository); err != nil {
		return err
	}
	return os.MkdirAll(o.output, 0o755)
}

// inside measures and prints.
func (o *options) inside(work string) (int, error) {
	images, err := testimage.BuildAll(o.repository)
	if err != nil {
		return 1, err
	}
	d := &instance.Daemon{Program: o.daemon, Work: work, Log: filepath.Join(o.output, "daemon.log"), Level: "info"}
	if err := registry.Serve(images, d.Registries()); err != nil {
		return 1, err
	}
	if err := d.Start(); err != nil {
		return 1, err
	}
	t, err := o.measure(d)
	if stopErr := d.Stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return 1, err
	}
	fmt.Printf("bare kernel operations, %d times\n", o.pods)
	if err := bareLives(t, filepath.Join(work, "bare"), o.repository, o.pods); err != nil {
		return 1, fmt.Errorf("bare operations: %w", err)
	}
	t.print(os.Stdout)
	return 0, o.save(t)
}

func (o *options) measure(d *instance.Daemon) (*table, error) {
	c, err := dial(d.Endpoint())
	if err != nil {
		return nil, err
	}
	defer c.close()
	t := newTable()
	fmt.Printf("pods one after the other, %d times\n", o.pods)
	if err := c.lives(t, o.pods); err != nil {
		return nil, err
	}
	fmt.Printf("pods %d at a time, %d times\n", o.jobs, o.pods)
	if err := c.rate(t, o.pods, o.jobs); err != nil {
		return nil, err
	}
	fmt.Printf("%d idle pods\n", o.idle)
	return t, c.idle(t, d.Program, o.idle)
}

func (o *options) save(t *table) error {
	text, err := json.MarshalIndent(struct {
		When    time.Time
		Results []row
		Numbers []number
	}{time.Now().UTC(), t.rows(), t.numbers}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(o.output, "result.json")
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Println("written to", path)
	return nil
}
