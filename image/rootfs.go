package image

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"cri-mini/image/layer"
	"cri-mini/image/reference"

	"github.com/opencontainers/go-digest"
)

// ImportRootfs makes an image with one layer from a root file system that
// somebody built: a folder, a tar archive, compressed or not, or a single
// static program, which becomes the only file and, unless cfg says otherwise,
// the entrypoint. name may be empty.
func (s *Store) ImportRootfs(ctx context.Context, path, name string, cfg Config) (Image, error) {
	img, err := s.importRootfs(ctx, path, name, cfg)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", path, err)
	}
	return img, nil
}

func (s *Store) importRootfs(ctx context.Context, path, name string, cfg Config) (Image, error) {
	tags, err := tagsOf(name)
	if err != nil {
		return Image{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Image{}, err
	}
	return s.ingestRootfs(ctx, path, info.IsDir(), cfg, "", incoming{tags: tags})
}

// ingestRootfs completes in with a layer of what is at path.
func (s *Store) ingestRootfs(ctx context.Context, path string, isDir bool, cfg Config, from string, in incoming) (Image, error) {
	var pending layer.Pending
	var err error
	if isDir {
		pending, err = s.writeFolder(ctx, path)
	} else {
		pending, err = s.writeFile(ctx, path, &cfg)
	}
	if err != nil {
		return Image{}, err
	}
	defer s.discard(pending) // it does nothing once it is committed
	if in.config, err = encodeConfig(cfg, s.platform, []digest.Digest{pending.DiffID()}, from); err != nil {
		return Image{}, err
	}
	in.layers = []incomingLayer{{digest: pending.DiffID(), ready: pending}}
	return s.ingest(ctx, in)
}

// BorrowRootfs makes an image of a root file system for one container. It goes
// with its last holder, and with the next Collect if it has none then, so that
// no kill leaves it behind. borrower makes it another image than any other of
// the same files, with which it must not go.
//
// A folder stays where it is and is used as the only layer, without a copy. It
// is not the store's: what changes in it changes for the container. A file is
// taken as ImportRootfs does.
func (s *Store) BorrowRootfs(ctx context.Context, path, borrower string) (Image, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Image{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Image{}, err
	}
	from := path + " for " + borrower
	in := incoming{pinned: true, passing: true}
	if !info.IsDir() {
		return s.ingestRootfs(ctx, path, false, Config{}, from, in)
	}
	in.directory = path
	if in.config, err = encodeConfig(Config{}, s.platform, nil, from); err != nil {
		return Image{}, err
	}
	return s.ingest(ctx, in)
}

func tagsOf(name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	n, err := reference.Parse(name)
	if err != nil {
		return nil, err
	}
	if n.Tag == "" {
		return nil, fmt.Errorf("name %q: an import takes a tag, not a digest", name)
	}
	return []string{n.String()}, nil
}

// writeFolder unpacks what tarFolder packs, without the archive in between.
func (s *Store) writeFolder(ctx context.Context, path string) (layer.Pending, error) {
	r, w := io.Pipe()
	defer r.Close() // stops the packer when unpacking failed
	go func() { w.CloseWithError(tarFolder(ctx, path, w)) }()
	return s.store.Write(ctx, r)
}

func (s *Store) writeFile(ctx context.Context, path string, cfg *Config) (layer.Pending, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err == nil && string(magic[:]) == elf.ELFMAG {
		return s.writeProgram(ctx, f, cfg)
	}
	return s.writeLayer(ctx, readerWithContext{ctx, f})
}

func (s *Store) writeProgram(ctx context.Context, f *os.File, cfg *Config) (layer.Pending, error) {
	if err := checkStatic(f, s.platform.Architecture); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	name := filepath.Base(f.Name())
	if len(cfg.Entrypoint) == 0 {
		cfg.Entrypoint = []string{"/" + name}
	}
	var head bytes.Buffer
	t := tar.NewWriter(&head)
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: info.Size()}); err != nil {
		return nil, err
	}
	padding := make([]byte, (512-info.Size()%512)%512+1024)
	return s.store.Write(ctx, io.MultiReader(&head, readerWithContext{ctx, io.LimitReader(f, info.Size())}, bytes.NewReader(padding)))
}

// checkStatic refuses a program that needs files which an image of it alone
// would not have.
func checkStatic(f *os.File, arch string) error {
	e, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("program: %w", err)
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		interp, err := io.ReadAll(io.LimitReader(p.Open(), 256))
		if err != nil {
			return fmt.Errorf("program: %w", err)
		}
		return fmt.Errorf("program is not static: it needs %q", strings.TrimRight(string(interp), "\x00"))
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return fmt.Errorf("program: ELF type %s cannot be run", e.Type)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "386": elf.EM_386, "arm": elf.EM_ARM, "riscv64": elf.EM_RISCV}
	if want, ok := machines[arch]; ok && e.Machine != want {
		return fmt.Errorf("program is for %s, wanted is %s", e.Machine, arch)
	}
	return nil
}
