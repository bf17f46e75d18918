package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// suites says where a kernel comes from.
var suites = map[string]string{"current": newest, "6.12": backports, "6.1": release}

// software is what the guest has besides its payload: what the tests of a
// runtime call, and what a person would miss.
var software = []string{
	"apparmor", "base-passwd", "bash", "coreutils", "dash", "diffutils", "e2fsprogs", "erofs-utils", "findutils", "grep", "gzip", "hostname",
	"iproute2", "iputils-ping", "kmod", "libc-bin", "mawk", "mount", "ncurses-base", "nftables", "procps", "sed", "strace", "tar", "util-linux",
}

// managers is what the guest has besides when its first program is another.
var managers = map[string][]string{"systemd": {"dbus", "libpam-runtime", "systemd"}}

// unwanted come along by dependencies of what is never done here, their
// installation.
var unwanted = regexp.MustCompile("^(debconf|dpkg|usrmerge|perl.*|lib.*perl.*|login|init-system-helpers)$")

// first are the modules that reach the disks and the serial ports.
var first = []string{"virtio_pci", "virtio_blk", "virtio_console", "ext4", "crc32c_generic", "crc32c_intel"}

// node is what a machine boots.
type node struct{ dir string }

func (n *node) kernel() string  { return filepath.Join(n.dir, "vmlinuz") }
func (n *node) modules() string { return filepath.Join(n.dir, "modules") }
func (n *node) disk() string    { return filepath.Join(n.dir, "root.ext4") }

func (c *cache) node(ctx context.Context, mirror, kernel, init string) (*node, error) {
	name, packages := "linux-"+kernel, software
	recipe := fmt.Sprint("2 ", suites[kernel], software, unwanted, first, files)
	if init != "" {
		name, packages = name+"-"+init, slices.Concat(software, managers[init])
		recipe += fmt.Sprint(managers[init], managerUsers)
	}
	dir, err := c.get(name, recipe, func(dir string) error {
		say("preparing Linux %s; this is done once and takes a minute", kernel)
		a, err := openArchive(ctx, filepath.Join(c.dir, "apt"), mirror)
		if err != nil {
			return err
		}
		b := &nodeBuilder{node: node{dir}, archive: a, tree: filepath.Join(dir, "tree"), packages: packages, init: init}
		return b.build(ctx, suites[kernel])
	})
	return &node{dir}, err
}

type nodeBuilder struct {
	node
	archive *archive
	tree    string // of the root file system
	version string // of the kernel, as uname -r says it

	packages []string // what the guest has besides the kernel
	init     string
}

func (b *nodeBuilder) build(ctx context.Context, suite string) error {
	if err := b.unpack(ctx, suite); err != nil {
		return err
	}
	if err := b.takeKernel(ctx); err != nil {
		return err
	}
	if err := b.complete(); err != nil {
		return err
	}
	if err := b.makeDisk(ctx); err != nil {
		return err
	}
	return os.RemoveAll(b.tree)
}

func (b *nodeBuilder) unpack(ctx context.Context, suite string) error {
	version, kernel, err := b.archive.kernel(ctx, suite)
	if err != nil {
		return err
	}
	b.version = version
	if err := b.archive.unpack(ctx, suite, b.tree, kernel); err != nil {
		return err
	}
	names, err := b.archive.names(ctx, release, b.packages...)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, unwanted.MatchString)
	return b.archive.unpack(ctx, release, b.tree, names)
}

// takeKernel moves the kernel out of the tree, and unpacks its modules: under
// emulation that would be slow.
func (b *nodeBuilder) takeKernel(ctx context.Context) error {
	modules := filepath.Join(b.tree, "usr/lib/modules", b.version)
	err := os.Rename(filepath.Join(b.tree, "boot/vmlinuz-"+b.version), b.kernel())
	if errors.Is(err, os.ErrNotExist) { // newer ones have it beside the modules
		err = os.Rename(filepath.Join(modules, "vmlinuz"), b.kernel())
	}
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "find", modules, "-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+")
	if _, err := output(command); err != nil {
		return err
	}
	depmod := append(loader(b.tree, "depmod"), filepath.Join(b.tree, "usr/bin/kmod"), "-b", b.tree, b.version)
	if _, err := output(exec.CommandContext(ctx, depmod[0], depmod[1:]...)); err != nil {
		return err
	}
	dependencies, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(b.modules(), 0o755); err != nil {
		return err
	}
	for i, file := range loadOrder(string(dependencies), first) {
		text, err := os.ReadFile(filepath.Join(modules, file))
		if err != nil {
			return err
		}
		name := filepath.Join(b.modules(), fmt.Sprintf("%02d-%s", i, filepath.Base(file)))
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// loadOrder lists the files of modules, each after those that it needs. A line
// of modules.dep is: file: what it needs, the deepest last. A module that is not
// there is part of the kernel.
func loadOrder(dependencies string, modules []string) []string {
	var order []string
	for _, module := range modules {
		for line := range strings.Lines(dependencies) {
			file, needs, _ := strings.Cut(line, ":")
			if strings.ReplaceAll(filepath.Base(file), "-", "_") != module+".ko" {
				continue
			}
			chain := append([]string{file}, strings.Fields(needs)...)
			for _, file := range slices.Backward(chain) {
				if !slices.Contains(order, file) {
					order = append(order, file)
				}
			}
		}
	}
	return order
}

// files are what the installation of the packages would have written.
var files = []struct{ path, text string }{
	{"etc/hostname", "node\n"},
	{"etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 node\n"},
	{"etc/resolv.conf", ""},
	{"etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"},
	// Everybody in the guest is root, and the real sudo wants PAM set up.
	{"usr/local/bin/sudo", "#!/bin/sh\nexec \"$@\"\n"},
}

func (b *nodeBuilder) complete() error {
	for _, dir := range []string{"boot", "dev", "etc", "home", "in", "media", "mnt", "opt", "out", "proc", "root", "run", "srv", "sys", "tmp", "usr/local/bin", "var/lib", "var/log", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(b.tree, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(b.tree, dir), os.ModeSticky|0o777); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(b.tree, f.path), []byte(f.text), 0o755); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{"usr/bin/awk": "mawk", "etc/mtab": "/proc/self/mounts", "var/run": "/run"} {
		if err := os.Symlink(target, filepath.Join(b.tree, link)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, name := range []string{"passwd", "group"} {
		master := filepath.Join(b.tree, "usr/share/base-passwd", name+".master")
		if err := os.Rename(master, filepath.Join(b.tree, "etc", name)); err != nil {
			return err
		}
	}
	if b.init == "" {
		return nil
	}
	return b.addUsers()
}

// managerUsers are who the message bus runs as.
var managerUsers = map[string]string{
	"passwd": "messagebus:x:100:101::/nonexistent:/usr/sbin/nologin\n",
	"group":  "messagebus:x:101:\n",
}

func (b *nodeBuilder) addUsers() error {
	for name, line := range managerUsers {
		path := filepath.Join(b.tree, "etc", name)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, append(text, line...), 0o644); err != nil {
			return err
		}
	}
	// An identity of its own would make the machine ask for its first settings.
	return os.WriteFile(filepath.Join(b.tree, "etc/machine-id"), []byte("6372692d6d696e692d746573742d766d\n"), 0o444)
}

// makeDisk writes the tree into a file system, as root's whoever we are.
func (b *nodeBuilder) makeDisk(ctx context.Context) error {
	mke2fs, err := tool("mke2fs", "e2fsprogs")
	if err != nil {
		return err
	}
	command := []string{
		mke2fs, "-q", "-t", "ext4", "-d", b.tree, "-m", "0", "-L", "root",
		"-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0", b.disk(), "8G",
	}
	if os.Geteuid() != 0 {
		unshare, err := tool("unshare", "util-linux")
		if err != nil {
			return err
		}
		command = append([]string{unshare, "--map-root-user"}, command...)
	}
	_, err = output(exec.CommandContext(ctx, command[0], command[1:]...))
	return err
}
