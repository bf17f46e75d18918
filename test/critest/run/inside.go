package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"cri-mini/test/critest/internal/instance"
	"cri-mini/test/critest/internal/registry"
	"cri-mini/test/critest/internal/testimage"
)

// inside starts registry, daemon and suite and gives the verdict.
func (o *options) inside(work string) (int, error) {
	// The suite and its volumes stay below one directory, which is also how the
	// leak check knows them.
	os.Setenv("TMPDIR", filepath.Join(work, "tmp"))
	if err := os.Mkdir(os.Getenv("TMPDIR"), 0o1777); err != nil {
		return 1, err
	}

	images, err := testimage.Build(testimage.Built(o.repository))
	if err != nil {
		return 1, err
	}
	d := &instance.Daemon{Program: o.daemon, Work: work, Log: filepath.Join(o.output, "daemon.log"), Level: "debug", CgroupDriver: o.driver}
	if err := registry.Serve(images, d.Registries()); err != nil {
		return 1, err
	}
	say("starting %s (log: %s)", o.daemon, d.Log)
	before, err := takeSnapshot(d)
	if err != nil {
		return 1, err
	}
	if err := d.Start(); err != nil {
		return 1, err
	}
	digest, err := images.Digest("test-image-digest:latest")
	if err != nil {
		return 1, err
	}
	result, suiteErr := o.runSuite(d.Endpoint(), digest)
	if err := d.Stop(); err != nil {
		say("FAIL: %v", err)
		suiteErr = fmt.Errorf("the daemon did not end well")
	}
	if suiteErr != nil {
		return 1, suiteErr
	}
	if o.driver == "systemd" {
		// The suite asks for its pods to be there; a parent is its asker's to remove.
		if out, err := exec.Command("systemctl", "stop", "test.slice").CombinedOutput(); err != nil {
			return 1, fmt.Errorf("systemctl stop test.slice: %w: %s", err, out)
		}
	}
	leaks, err := before.leaks(d)
	if err != nil {
		return 1, err
	}
	return o.judge(result, leaks)
}
