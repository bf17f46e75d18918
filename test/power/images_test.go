package power

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cri-mini/internal/testregistry"
)

// known is an image that the registry has or had, and what its layers hold.
type known struct {
	name string // with its tag
	testregistry.Pushed
}

// catalogue is all that may ever be served.
type catalogue struct {
	registry *testregistry.Registry
	images   []known
	layers   map[string][]string // by diff id: a line for each name
	chance   *rand.Rand
}

func newCatalogue(seed uint64) *catalogue {
	return &catalogue{
		registry: testregistry.New(testregistry.Options{}),
		layers:   map[string][]string{},
		chance:   rand.New(rand.NewPCG(seed, 0)),
	}
}

// push gives a tag another image.
func (c *catalogue) push(tag string, layers ...testregistry.Layer) known {
	k := known{"registry.test/" + tag + ":1", c.registry.Push(tag, "1", testregistry.Image{
		Layers: layers, Config: ocispec.ImageConfig{Cmd: []string{fmt.Sprint(len(c.images))}},
	})}
	c.images = append(c.images, k)
	for i, l := range layers {
		c.layers[k.DiffIDs[i].String()] = expected(l.Files)
	}
	return k
}

// byID finds an image by the digest of its config.
func (c *catalogue) byID(id string) (known, bool) {
	i := slices.IndexFunc(c.images, func(k known) bool { return k.ID == id })
	if i < 0 {
		return known{}, false
	}
	return c.images[i], true
}

// current lists the image that each tag leads to.
func (c *catalogue) current() (images []known) {
	for _, k := range c.images {
		if i := slices.IndexFunc(images, func(other known) bool { return other.name == k.name }); i >= 0 {
			images[i] = k
		} else {
			images = append(images, k)
		}
	}
	return images
}

func (c *catalogue) noise(size int) string {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(c.chance.Uint32())
	}
	return string(data)
}

// layer has files of many sizes and of every kind, in a folder of that name, and
// no two are alike.
func (c *catalogue) layer(name string, small, large int) testregistry.Layer {
	l := testregistry.Layer{Files: []testregistry.File{{Name: name + "/"}, {Name: name + "/deep/", Mode: 0o750, UID: 1000, GID: 2000}}}
	add := func(f testregistry.File) {
		f.Name = name + "/" + f.Name
		l.Files = append(l.Files, f)
	}
	add(testregistry.File{Name: "large", Data: c.noise(large), Mode: 0o600})
	for i := range small {
		f := testregistry.File{Name: fmt.Sprint("deep/", i), Data: c.noise(1 + c.chance.IntN(6000)), UID: i, GID: 2 * i}
		if i%10 == 0 {
			f.Mode = 0o4755
			f.Xattrs = map[string]string{"user.number": fmt.Sprint(i)}
		}
		add(f)
	}
	add(testregistry.File{Name: "empty"})
	add(testregistry.File{Name: "symlink", Type: tar.TypeSymlink, Link: "deep/0", Mode: 0o777})
	add(testregistry.File{Name: "hardlink", Type: tar.TypeLink, Link: name + "/large", Mode: 0o600})
	return l
}

// expected says of each file what listing has to find.
func expected(files []testregistry.File) []string {
	var lines []string
	for _, f := range files {
		target := f
		same := func(other testregistry.File) bool { return other.Name == f.Link }
		if i := slices.IndexFunc(files, same); f.Type == tar.TypeLink && i >= 0 {
			target = files[i]
		}
		line := line{name: strings.TrimSuffix(f.Name, "/"), mode: uint32(target.Mode), uid: target.UID, gid: target.GID, xattr: target.Xattrs["user.number"]}
		switch {
		case strings.HasSuffix(f.Name, "/"):
			line.kind = "folder"
			if line.mode == 0 {
				line.mode = 0o755
			}
		case f.Type == tar.TypeSymlink:
			line.kind, line.content = "symlink", f.Link
		default:
			line.kind, line.content = "file", fmt.Sprintf("%x", sha256.Sum256([]byte(target.Data)))
			if line.mode == 0 {
				line.mode = 0o644
			}
		}
		lines = append(lines, line.String())
	}
	slices.Sort(lines)
	return lines
}
