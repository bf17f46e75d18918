package main

import (
	"bytes"
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

// The release that everything is taken from, whatever this machine runs.
const (
	release   = "bookworm"
	backports = release + "-backports"
	newest    = "trixie-backports" // only its kernel, which needs nothing of its release
	keyring   = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// archive is Debian's, seen through an apt of our own. That one believes that
// nothing is installed, so whatever it fetches is complete.
type archive struct{ dir string }

// tool finds a program or says which package has it.
func tool(name, debian string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} { // not in everybody's PATH
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
		return "", fmt.Errorf("tool missing: %s (apt-get install %s)", name, debian)
	}
	return path, nil
}

// openArchive fetches the lists of packages.
func openArchive(ctx context.Context, dir, mirror string) (*archive, error) {
	for name, debian := range map[string]string{"apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar", "xz": "xz-utils", "mke2fs": "e2fsprogs"} {
		if _, err := tool(name, debian); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("the keys of Debian's archive: %w (apt-get install debian-archive-keyring)", err)
	}
	if mirror == "" {
		var err error
		if mirror, err = machineMirror("/etc/apt"); err != nil {
			return nil, err
		}
	}
	a := &archive{dir}
	if err := a.configure(mirror); err != nil {
		return nil, err
	}
	say("fetching the lists of packages from %s", mirror)
	if _, err := output(a.command(ctx, "apt-get", "-q", "update")); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *archive) configure(mirror string) error {
	for _, dir := range []string{"lists/partial", "debs/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return err
		}
	}
	var sources strings.Builder
	for _, suite := range []string{release, backports, newest} {
		fmt.Fprintf(&sources, "deb [signed-by=%s] %s %s main\n", keyring, mirror, suite)
	}
	configuration := fmt.Sprintf(`Dir "%s";
Dir::Etc "%[1]s/etc";
Dir::State "%[1]s";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s";
Dir::Cache::archives "%[1]s/debs";
Dir::Bin::methods "/usr/lib/apt/methods";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
`, a.dir)
	for name, text := range map[string]string{"etc/sources.list": sources.String(), "apt.conf": configuration, "status": ""} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command is one that knows our configuration.
func (a *archive) command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, name, arguments...)
	command.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"), "LC_ALL=C")
	return command
}

// output runs a command and puts what it said into the error.
func output(command *exec.Cmd) ([]byte, error) {
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, bytes.TrimSpace(append(out, errs.Bytes()...)))
	}
	return out, nil
}

// names lists the packages that these need, with themselves.
func (a *archive) names(ctx context.Context, suite string, packages ...string) ([]string, error) {
	out, err := output(a.command(ctx, "apt-get", append([]string{"install", "-y", "-t", suite, "--print-uris", "-qq"}, packages...)...))
	if err != nil {
		return nil, err
	}
	return parseURIs(string(out))
}

// parseURIs reads lines like: 'http://…/libc6_2.36_amd64.deb' libc6_2.36_amd64.deb 2758000 SHA256:…
func parseURIs(text string) ([]string, error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, fmt.Errorf("apt-get --print-uris says %q", line)
		}
		name, _, _ := strings.Cut(fields[1], "_")
		names = append(names, name)
	}
	return names, nil
}

var dependsField = regexp.MustCompile(`(?m)^Depends: (.*)$`)

// depends lists the names that a package depends on and that match.
func (a *archive) depends(ctx context.Context, suite, name string, matching *regexp.Regexp) ([]string, error) {
	out, err := output(a.command(ctx, "apt-cache", "-o", "APT::Default-Release="+suite, "show", "--no-all-versions", name))
	if err != nil {
		return nil, err
	}
	var names []string
	if field := dependsField.FindSubmatch(out); field != nil {
		for clause := range strings.SplitSeq(string(field[1]), ",") {
			if fields := strings.Fields(clause); len(fields) > 0 && matching.MatchString(fields[0]) {
				names = append(names, fields[0])
			}
		}
	}
	return names, nil
}

const imagePrefix = "linux-image-"

// kernel lists the packages of the kernel that a suite has now, and its version
// as uname -r says it. Newer ones are in pieces of the same version.
func (a *archive) kernel(ctx context.Context, suite string) (version string, packages []string, err error) {
	images, err := a.depends(ctx, suite, imagePrefix+"cloud-amd64", regexp.MustCompile("^"+imagePrefix+"[0-9]"))
	if err != nil {
		return "", nil, err
	}
	if len(images) != 1 {
		return "", nil, fmt.Errorf("kernel of %s: %q, want one", suite, images)
	}
	version = strings.TrimPrefix(images[0], imagePrefix)
	pieces, err := a.depends(ctx, suite, images[0], regexp.MustCompile("-"+regexp.QuoteMeta(version)+"$"))
	return version, append(images, pieces...), err
}

// unpack fetches exactly these packages and unpacks them below dir.
func (a *archive) unpack(ctx context.Context, suite, dir string, packages []string) error {
	// Without the links, packages that name /lib and those that name /usr/lib
	// would not find each other.
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(dir, "usr", name), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+name, filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	debs := filepath.Join(a.dir, "download")
	if err := os.RemoveAll(debs); err != nil { // of a run that was killed
		return err
	}
	if err := os.Mkdir(debs, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	say("fetching %d packages", len(packages))
	download := a.command(ctx, "apt-get", append([]string{"-q", "-t", suite, "download"}, packages...)...)
	download.Dir = debs
	if _, err := output(download); err != nil {
		return err
	}
	files, err := filepath.Glob(debs + "/*.deb")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, file := range files {
		// dpkg-deb -x would replace the links by directories.
		command := exec.CommandContext(ctx, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink --no-same-owner -C "$2"`, "sh", file, dir)
		if _, err := output(command); err != nil {
			return err
		}
	}
	return nil
}
