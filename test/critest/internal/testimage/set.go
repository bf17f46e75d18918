// Package testimage makes the images that the upstream suite pulls.
//
// A File is one entry of a Layer; an image is layers with a Config; a Set holds
// all images as Blobs by digest, with the tags that name them. Nothing is taken
// from a registry: the contents are one busybox and small programs of this
// module. The package knows nothing of HTTP and names no registry; only the
// last element of a repository's path identifies an image.
package testimage

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Blob is one object of a registry.
type Blob struct {
	MediaType string
	Body      []byte
}

// Set is all images of the suite.
type Set struct {
	Blobs map[string]Blob   // by digest
	Tags  map[string]string // "test-image-tag:test" to the digest of its index
}

// Programs are the files, already built, that images contain.
type Programs struct {
	Busybox, Webserver, NoNewPrivs string
}

// Digest returns the digest that a tag such as "test-image-digest:latest" names.
func (s *Set) Digest(tag string) (string, error) {
	digest, ok := s.Tags[tag]
	if !ok {
		return "", fmt.Errorf("test image %s: unknown", tag)
	}
	return digest, nil
}

// Build makes every image of the suite.
func Build(programs Programs) (*Set, error) {
	set := &Set{Blobs: map[string]Blob{}, Tags: map[string]string{}}
	parts, err := newParts(programs)
	if err != nil {
		return nil, err
	}
	for _, image := range catalog(parts) {
		// Equal contents would be equal images, and removing one would remove
		// the other from under the specs that use it.
		image.config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		image.config.Labels = map[string]string{"image": image.tags[0]}
		digest, err := set.add(image.config, image.layers...)
		if err != nil {
			return nil, fmt.Errorf("test image %s: %w", image.tags[0], err)
		}
		for _, tag := range image.tags {
			set.Tags[tag] = digest
		}
	}
	return set, nil
}

// Add makes one more image, which the tag names.
func (s *Set) Add(tag string, config Config, layers ...*Layer) error {
	digest, err := s.add(config, layers...)
	if err == nil {
		s.Tags[tag] = digest
	}
	return err
}

// BusyboxLayer is a root file system of the program at path.
func BusyboxLayer(path string) (*Layer, error) {
	files, err := busyboxFiles(path)
	if err != nil {
		return nil, err
	}
	return NewLayer(files)
}

type entry struct {
	tags   []string
	config Config
	layers []*Layer
}

// catalog lists the images with the contents that the specs ask for.
func catalog(p *parts) []entry {
	shell := Config{Cmd: []string{"sh"}}
	user := func(name string) Config { return Config{User: name, Cmd: []string{"sh"}} }
	base := []*Layer{p.busybox}
	images := []entry{
		{[]string{"busybox:1.29-2"}, shell, base},
		{[]string{"nginx:1.14-2"}, Config{Cmd: []string{"nginx", "-g", "daemon off;"}}, []*Layer{p.busybox, p.nginx}},
		{[]string{"httpd:2.4.39-4"}, Config{Cmd: []string{"httpd-foreground"}}, []*Layer{p.busybox, p.httpd}},
		{[]string{"hostnet-nginx-" + runtime.GOARCH + ":latest"}, Config{Cmd: []string{"hostnet-nginx"}}, []*Layer{p.busybox, p.hostnet}},
		{[]string{"nonewprivs:1.3"}, Config{Cmd: []string{"nnp"}}, []*Layer{p.busybox, p.nonewprivs}},
		{[]string{"pause:3.9"}, Config{Entrypoint: []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"}}, base},
		{[]string{"test-image-user-uid:latest"}, user("1002"), base},
		{[]string{"test-image-user-username:latest"}, user("www-data"), base},
		{[]string{"test-image-user-uid-group:latest"}, user("1003:1004"), base},
		{[]string{"test-image-user-username-group:latest"}, user("www-data:1004"), base},
		{[]string{"test-image-predefined-group:latest"}, user("1000"), []*Layer{p.busybox, p.groups}},
		{[]string{"test-image-tags:1", "test-image-tags:2", "test-image-tags:3"}, shell, base},
	}
	for _, tag := range []string{
		"test-image-latest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-digest:latest",
		"test-image-1:latest", "test-image-2:latest", "test-image-3:latest",
		"busybox:1.35.0-glibc", "busybox:1-uclibc", "busybox:1", "busybox:1-glibc", "busybox:1-musl", // of the benchmarks
	} {
		images = append(images, entry{[]string{tag}, shell, base})
	}
	return images
}

// parts are the layers that images are put together from.
type parts struct {
	busybox, nginx, httpd, hostnet, nonewprivs, groups *Layer
}

func newParts(programs Programs) (*parts, error) {
	base, err := busyboxFiles(programs.Busybox)
	if err != nil {
		return nil, err
	}
	webserver, err := os.ReadFile(programs.Webserver)
	if err != nil {
		return nil, fmt.Errorf("web server: %w", err)
	}
	nonewprivs, err := os.ReadFile(programs.NoNewPrivs)
	if err != nil {
		return nil, fmt.Errorf("nonewprivs: %w", err)
	}
	p := new(parts)
	for _, part := range []struct {
		layer **Layer
		files []File
	}{
		{&p.busybox, base},
		{&p.nginx, []File{{Name: "usr/sbin/nginx", Mode: 0o755, Body: webserver}}},
		{&p.httpd, []File{{Name: "usr/local/bin/httpd-foreground", Mode: 0o755, Body: webserver}}},
		{&p.hostnet, []File{{Name: "usr/sbin/hostnet-nginx", Mode: 0o755, Body: webserver}}},
		{&p.nonewprivs, []File{{Name: "usr/local/bin/nnp", Mode: 0o4755, Body: nonewprivs}}},
		{&p.groups, []File{
			{Name: "etc/passwd", Mode: 0o644, Body: []byte(passwd + "default-user:x:1000:1000::/home:/bin/sh\n")},
			{Name: "etc/group", Mode: 0o644, Body: []byte(group + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")},
		}},
	} {
		if *part.layer, err = NewLayer(part.files); err != nil {
			return nil, err
		}
	}
	return p, nil
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	group  = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"
)

// busyboxFiles is a root file system whose commands are hard links. With
// symbolic links a mask over /bin/ls would cover busybox itself, and every
// other command with it.
func busyboxFiles(path string) ([]File, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("busybox: %w", err)
	}
	list, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	files := []File{
		{Name: "bin/", Mode: 0o755}, {Name: "etc/", Mode: 0o755}, {Name: "home/", Mode: 0o755}, {Name: "root/", Mode: 0o700},
		{Name: "tmp/", Mode: 0o1777}, {Name: "usr/", Mode: 0o755}, {Name: "usr/local/", Mode: 0o755}, {Name: "usr/local/bin/", Mode: 0o755},
		{Name: "usr/sbin/", Mode: 0o755}, {Name: "var/", Mode: 0o755}, {Name: "var/run/", Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644, Body: []byte(passwd)},
		{Name: "etc/group", Mode: 0o644, Body: []byte(group)},
		{Name: "bin/busybox", Mode: 0o755, Body: body},
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			files = append(files, File{Name: "bin/" + applet, Mode: 0o755, Link: "bin/busybox"})
		}
	}
	return files, nil
}
