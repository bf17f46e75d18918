package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// cache is a directory of things that take a while to make. Each is a directory
// whose name says what it was made from, so a changed recipe makes a new one.
type cache struct{ dir string }

// get returns the directory of a thing, made by build if it is not there.
// Several programs may ask at once: one builds, the others wait.
func (c *cache) get(name, recipe string, build func(dir string) error) (string, error) {
	path := filepath.Join(c.dir, fmt.Sprintf("%s-%.8x", name, sha256.Sum256([]byte(recipe))))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	temporary := filepath.Join(c.dir, "new")
	if err := os.RemoveAll(temporary); err != nil { // of a run that was killed
		return "", err
	}
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary)
	if err := build(temporary); err != nil {
		return "", err
	}
	return path, os.Rename(temporary, path)
}

// emulator is a QEMU that brings its own libraries.
type emulator struct{ dir string }

func (c *cache) emulator(ctx context.Context, mirror string) (*emulator, error) {
	dir, err := c.get("qemu", backports+" qemu-system-x86", func(dir string) error {
		say("preparing QEMU; this is done once and takes a minute")
		a, err := openArchive(ctx, filepath.Join(c.dir, "apt"), mirror)
		if err != nil {
			return err
		}
		names, err := a.names(ctx, backports, "qemu-system-x86")
		if err != nil {
			return err
		}
		return a.unpack(ctx, backports, dir, names)
	})
	return &emulator{dir}, err
}

const libraries = "usr/lib/x86_64-linux-gnu"

// loader runs a program of a tree with the tree's own loader and libraries, so
// that it does not matter which ones this machine has.
func loader(tree, program string) []string {
	return []string{
		filepath.Join(tree, "usr/lib64/ld-linux-x86-64.so.2"), "--argv0", filepath.Base(program),
		"--library-path", strings.Join([]string{filepath.Join(tree, libraries), filepath.Join(tree, "usr/lib")}, ":"),
	}
}
