package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

type imagesCmd struct {
	Quiet bool `short:"q" help:"Only ids."`
}

func (c *imagesCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	cri, err := dial(e)
	if err != nil {
		return err
	}
	defer cri.Close()
	answer, err := cri.ListImages(ctx, &criapi.ListImagesRequest{})
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !c.Quiet {
		fmt.Fprintln(table, "IMAGE\tID\tSIZE")
	}
	for _, img := range answer.Images {
		if c.Quiet {
			fmt.Fprintln(table, img.Id)
			continue
		}
		for _, name := range names(img) {
			fmt.Fprintf(table, "%s\t%s\t%s\n", name, short(img.Id), byteCount(int64(img.Size)))
		}
	}
	return table.Flush()
}

func names(img *criapi.Image) []string {
	switch {
	case len(img.RepoTags) > 0:
		return img.RepoTags
	case len(img.RepoDigests) > 0:
		return img.RepoDigests
	}
	return []string{"-"}
}

// byteCount is a number of bytes as people read it.
func byteCount(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n), -1
	for value >= unit && prefix < 4 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTP"[prefix])
}

type rmiCmd struct {
	Images []string `arg:"" help:"Names or ids."`
}

func (c *rmiCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	cri, err := dial(e)
	if err != nil {
		return err
	}
	defer cri.Close()
	for _, name := range c.Images {
		spec := &criapi.ImageSpec{Image: name}
		found, err := cri.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: spec})
		if err != nil {
			return err
		}
		if found.Image == nil { // the kubelet does not care, a person does
			return fmt.Errorf("image %q: not found", name)
		}
		if _, err := cri.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: spec}); err != nil {
			return err
		}
		fmt.Fprintln(out, found.Image.Id)
	}
	return nil
}

type importCmd struct {
	Path       string   `arg:"" help:"OCI layout or archive; or a root file system: a directory, or with --rootfs a tar archive or one static program."`
	Rootfs     bool     `help:"The path is a root file system."`
	Name       string   `placeholder:"NAME" help:"Name of the image."`
	Entrypoint []string `sep:"none" placeholder:"WORD" help:"Of a root file system; once per word."`
	Cmd        []string `sep:"none" placeholder:"WORD" help:"Likewise."`
	Env        []string `short:"e" sep:"none" placeholder:"NAME=VALUE" help:"Likewise."`
	Workdir    string   `placeholder:"DIR" help:"Likewise."`
	User       string   `placeholder:"USER" help:"Likewise."`
}

func (c *importCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	path, err := filepath.Abs(c.Path) // the daemon's folder is not ours
	if err != nil {
		return err
	}
	answer, err := daemonAt(e).Import(ctx, admin.ImportRequest{
		Path: path, Rootfs: c.Rootfs, Name: c.Name,
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.Workdir, User: c.User,
	})
	if err != nil {
		return err
	}
	for _, img := range answer.Images {
		fmt.Fprintln(out, img.ID)
	}
	return nil
}
