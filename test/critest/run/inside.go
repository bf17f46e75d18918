package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"cri-mini/test/critest/internal/registry"
	"cri-mini/test/critest/internal/testimage"
)

// inside is the third process.
func inside(o options) (int, error) {
	work, err := os.MkdirTemp("", "critest-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(work)
	// The suite and its volumes stay below one directory, which is also how the
	// leak check knows them.
	os.Setenv("TMPDIR", filepath.Join(work, "tmp"))
	if err := os.Mkdir(os.Getenv("TMPDIR"), 0o1777); err != nil {
		return 1, err
	}

	images, err := buildImages()
	if err != nil {
		return 1, err
	}
	d := &daemon{program: o.daemon, work: work, log: filepath.Join(o.output, "daemon.log")}
	if err := serveImages(images, d.registries()); err != nil {
		return 1, err
	}
	say("starting %s (log: %s)", o.daemon, d.log)
	before, err := takeSnapshot(d)
	if err != nil {
		return 1, err
	}
	if err := d.start(); err != nil {
		return 1, err
	}
	digest, err := images.Digest("test-image-digest:latest")
	if err != nil {
		return 1, err
	}
	result, suiteErr := o.runSuite(d.endpoint(), digest)
	if err := d.stop(); err != nil {
		say("FAIL: %v", err)
		suiteErr = fmt.Errorf("the daemon did not end well")
	}
	if suiteErr != nil {
		return 1, suiteErr
	}
	leaks, err := before.leaks(d)
	if err != nil {
		return 1, err
	}
	return o.judge(result, leaks)
}

func buildImages() (*testimage.Set, error) {
	repository, err := testimage.Repository()
	if err != nil {
		return nil, err
	}
	programs, err := testimage.BuildPrograms(repository) // cached by the first process
	if err != nil {
		return nil, err
	}
	return testimage.Build(programs)
}

// serveImages starts the registry and tells the daemon, by a mirror for every
// host, that it has whatever is asked for.
func serveImages(images *testimage.Set, directory string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	server := &http.Server{Handler: &registry.Handler{Images: images}}
	go func() { _ = server.Serve(listener) }() // ends with this process
	return registry.WriteMirror(directory, "http://"+listener.Addr().String(), "")
}
