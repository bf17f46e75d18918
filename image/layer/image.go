package layer

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"cri-mini/image/layer/erofs"
	"cri-mini/image/layer/index"
	"cri-mini/image/layer/tree"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// imageBuilder packs a layer into one EROFS image. Only contents are written
// as they come; all else is in the tree until the end, so that a name that is
// replaced costs nothing but the space of its old content.
type imageBuilder struct {
	disk   *os.File
	writer *erofs.Writer
}

func newImageBuilder(path string) (*imageBuilder, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return &imageBuilder{disk: f, writer: erofs.NewWriter(f)}, nil
}

func (b *imageBuilder) file(_ *tree.Node, _ string, n *tree.Node, content io.Reader, sparse bool) error {
	return b.writer.Content(n, content, sparse)
}

func (b *imageBuilder) create(*tree.Node, string, *tree.Node) error { return nil }

func (b *imageBuilder) link(*tree.Node, string, *tree.Node, string) error { return nil }

func (b *imageBuilder) remove(*tree.Node, string, *tree.Node) error { return nil }

// finish names the file system after the layer: overlayfs tells its lower
// layers apart by their UUIDs.
func (b *imageBuilder) finish(root *tree.Node, id digest.Digest) (uint64, index.File, error) {
	var identifier [16]byte
	if _, err := hex.Decode(identifier[:], []byte(id.Encoded()[:2*len(identifier)])); err != nil {
		return 0, index.File{}, fmt.Errorf("digest %s: %w", id, err)
	}
	w, err := b.writer.Finish(root, identifier)
	return uint64(w.Size), index.File{Size: w.Length, Rest: w.Rest, HeadSum: w.HeadSum, RestSum: w.RestSum}, err
}

func (b *imageBuilder) close() error { return b.disk.Close() }
