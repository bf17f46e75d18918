package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

type runCmd struct {
	podFlags    `embed:""`
	streamFlags `embed:""`
	Rootfs      string   `placeholder:"PATH" help:"A root file system instead of an image: a directory, used as it is, a tar archive or one static program, which gets the words."`
	Words       []string `arg:"" optional:"" passthrough:"partial" name:"image and command" help:"IMAGE [--] [PROGRAM ARGUMENT...]; without the image when there is a --rootfs."`
}

func (c *runCmd) Run(ctx context.Context, e *config.Endpoint) error {
	image, command, err := c.split()
	if err != nil {
		return err
	}
	endpoint, end, err := daemonForRun(ctx, e)
	if err != nil {
		return err
	}
	err = c.runAt(ctx, endpoint, image, command)
	return errors.Join(err, end())
}

func (c *runCmd) split() (image string, command []string, err error) {
	words := c.Words
	if c.Rootfs == "" {
		if len(words) == 0 || words[0] == "--" {
			return "", nil, errors.New("run: give an IMAGE, or --rootfs")
		}
		image, words = words[0], words[1:]
	}
	return image, withoutDashes(words), nil
}

func (c *runCmd) runAt(ctx context.Context, e *config.Endpoint, image string, command []string) error {
	daemon := daemonAt(e)
	if image != "" {
		if err := havePulled(ctx, e, image); err != nil {
			return err
		}
	}
	stdin, tty := c.choose()
	pod, container, err := c.configs(image, command, stdin != nil, tty)
	if err != nil {
		return err
	}
	rootfs, err := absolute(c.Rootfs)
	if err != nil {
		return err
	}
	if rootfs != "" {
		container.Image.UserSpecifiedImage = rootfs
	}
	session, err := daemon.Run(ctx, admin.RunRequest{Pod: pod, Container: container, Rootfs: rootfs, Size: terminalSize()})
	if err != nil {
		return err
	}
	return converse(ctx, session, stdin, tty)
}

// havePulled fetches an image that is not there.
func havePulled(ctx context.Context, e *config.Endpoint, image string) error {
	cri, err := dial(e)
	if err != nil {
		return err
	}
	defer cri.Close()
	found, err := cri.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: image}})
	if err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	if found.GetImage() != nil {
		return nil
	}
	if _, err := pull(ctx, daemonAt(e), admin.PullRequest{Image: image}); err != nil {
		return fmt.Errorf("image %q: %w", image, err)
	}
	return nil
}
