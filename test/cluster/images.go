package main

import (
	"archive/tar"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cri-mini/internal/testregistry"
)

// imageHost is the registry in the names of the images. The nodes are told to
// ask ours.
const imageHost = "registry.test"

// pushImages serves busybox, and the two versions of a web server that a
// Deployment goes from and to.
func (c *cluster) pushImages() error {
	layer, err := testregistry.Busybox()
	if err != nil {
		return err
	}
	// kubectl cp runs it.
	layer.Files = append(layer.Files, testregistry.File{Name: "bin/tar", Type: tar.TypeLink, Link: "bin/busybox"})
	c.registry = testregistry.New(testregistry.Options{Address: control + ":5000"})
	c.registry.Push("busybox", "1", testregistry.Image{Layers: []testregistry.Layer{layer}, Config: ocispec.ImageConfig{Cmd: []string{"sleep", "100000"}}})
	for _, version := range []string{"1", "2"} {
		c.registry.Push("web", version, testregistry.Image{
			Layers: []testregistry.Layer{layer, testregistry.Files(map[string]string{"www/version": version + "\n", "www/index.html": "hello from web " + version + "\n"})},
			Config: ocispec.ImageConfig{Cmd: []string{"httpd", "-f", "-p", "8080", "-h", "/www"}},
		})
	}
	return nil
}
