package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/config"
)

type psCmd struct {
	All   bool `short:"a" help:"Those as well that do not run."`
	Quiet bool `short:"q" help:"Only ids."`
}

func (c *psCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	cri, err := dial(e)
	if err != nil {
		return err
	}
	defer cri.Close()
	containers, pods, err := cri.everything(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !c.Quiet {
		fmt.Fprintln(table, "CONTAINER\tNAME\tPOD\tIMAGE\tSTATE\tAGE\tPID")
	}
	for _, one := range containers {
		if !c.All && one.State != criapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		if c.Quiet {
			fmt.Fprintln(table, one.Id)
			continue
		}
		now, d, err := cri.container(ctx, one.Id)
		if status.Code(err) == codes.NotFound {
			continue // it went away while we looked
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(table, psLine(now, pods[one.PodSandboxId], d.PID, time.Now()))
	}
	return table.Flush()
}

func psLine(c *criapi.ContainerStatus, pod *criapi.PodSandbox, pid int, now time.Time) string {
	process := "-"
	if pid != 0 {
		process = strconv.Itoa(pid)
	}
	return strings.Join([]string{
		short(c.Id), c.Metadata.GetName(), pod.GetMetadata().GetName(), imageName(c), state(c),
		age(now.Sub(time.Unix(0, c.CreatedAt))), process,
	}, "\t")
}

// imageName is the image as the user wrote it, as far as it is known.
func imageName(c *criapi.ContainerStatus) string {
	for _, name := range []string{c.Image.GetUserSpecifiedImage(), c.Image.GetImage(), c.ImageId} {
		if name != "" && !strings.HasPrefix(name, "sha256:") {
			return name
		}
	}
	return short(c.ImageId)
}

func state(c *criapi.ContainerStatus) string {
	word := strings.ToLower(strings.TrimPrefix(c.State.String(), "CONTAINER_"))
	if c.State == criapi.ContainerState_CONTAINER_EXITED {
		return fmt.Sprintf("%s (%d)", word, c.ExitCode)
	}
	return word
}

// age is a duration in its largest unit.
func age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
