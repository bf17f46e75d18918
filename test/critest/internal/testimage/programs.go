package testimage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Repository returns the top of the source tree, from any directory in it.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "hack/busybox")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("find the repository: the working directory is not in it")
		}
	}
}

// Built is where BuildPrograms leaves its results: in the repository's cache,
// where a second build finds them.
func Built(repository string) Programs {
	return Programs{
		Busybox:    filepath.Join(repository, ".cache/busybox"),
		Webserver:  filepath.Join(repository, ".cache/images/webserver"),
		NoNewPrivs: filepath.Join(repository, ".cache/images/nonewprivs"),
	}
}

// BuildPrograms compiles what the images contain.
func BuildPrograms(repository string) (Programs, error) {
	programs := Built(repository)
	busybox := exec.Command(filepath.Join(repository, "hack/busybox"))
	busybox.Stderr = os.Stderr
	path, err := busybox.Output()
	if err != nil {
		return Programs{}, fmt.Errorf("hack/busybox: %w", err)
	}
	programs.Busybox = strings.TrimSpace(string(path))
	module := filepath.Join(repository, "test/critest")
	for _, output := range []string{programs.Webserver, programs.NoNewPrivs} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", output, "./images/"+filepath.Base(output))
		build.Dir = module
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return Programs{}, fmt.Errorf("build %s: %w", filepath.Base(output), err)
		}
	}
	return programs, nil
}

// BuildAll builds programs and images.
func BuildAll(repository string) (*Set, error) {
	programs, err := BuildPrograms(repository)
	if err != nil {
		return nil, err
	}
	return Build(programs)
}
