package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/config"
	"cri-mini/internal/hostview"
)

type inspectCmd struct {
	Name string `arg:"" help:"Container or pod: its name, id or the beginning of it."`
	JSON bool   `name:"json" help:"For programs."`
}

// inspected is a container or a pod.
type inspected struct {
	Kind    string // "container" or "pod"
	ID      string
	Name    string
	Pod     string         `json:",omitempty"` // of a container
	State   string         `json:",omitempty"`
	Image   string         `json:",omitempty"`
	Log     string         `json:",omitempty"`
	IPs     []string       `json:",omitempty"` // of a pod
	Init    int            `json:",omitempty"` // of a pod: our process 1 of the PID namespace that its containers share
	Process *hostview.View `json:",omitempty"` // of a container: its first

	Containers []inspected `json:",omitempty"` // of a pod
}

func (c *inspectCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	cri, err := dial(e)
	if err != nil {
		return err
	}
	defer cri.Close()
	thing, err := cri.inspect(ctx, c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(out, thing)
	}
	return thing.print(out)
}

// inspect prefers a pod of that name: its containers are shown with it.
func (c *client) inspect(ctx context.Context, word string) (inspected, error) {
	containers, pods, err := c.everything(ctx)
	if err != nil {
		return inspected{}, err
	}
	var found []*criapi.PodSandbox
	for _, pod := range pods {
		if pod.Metadata.GetName() == word || strings.HasPrefix(pod.Id, word) {
			found = append(found, pod)
		}
	}
	switch len(found) {
	case 0:
		one, err := c.find(ctx, word)
		if err != nil {
			return inspected{}, fmt.Errorf("container or pod %q: not found", word)
		}
		return c.inspectContainer(ctx, one.Id, pods[one.PodSandboxId])
	case 1:
		return c.inspectPod(ctx, found[0], containers)
	}
	return inspected{}, fmt.Errorf("pod %q: %d match; use an id", word, len(found))
}

func (c *client) inspectPod(ctx context.Context, pod *criapi.PodSandbox, containers []*criapi.Container) (inspected, error) {
	status, d, err := c.pod(ctx, pod.Id)
	if err != nil {
		return inspected{}, err
	}
	thing := inspected{
		Kind: "pod", ID: status.Id, Name: status.Metadata.GetNamespace() + "/" + status.Metadata.GetName(),
		State: strings.ToLower(strings.TrimPrefix(status.State.String(), "SANDBOX_")),
		// It is in no other namespace of the pod: a view of it would mislead.
		Init: d.PID,
	}
	if ip := status.Network.GetIp(); ip != "" {
		thing.IPs = append(thing.IPs, ip)
	}
	for _, ip := range status.Network.GetAdditionalIps() {
		thing.IPs = append(thing.IPs, ip.Ip)
	}
	for _, one := range containers {
		if one.PodSandboxId == pod.Id {
			inside, err := c.inspectContainer(ctx, one.Id, pod)
			if err != nil {
				return thing, err
			}
			thing.Containers = append(thing.Containers, inside)
		}
	}
	return thing, nil
}

func (c *client) inspectContainer(ctx context.Context, id string, pod *criapi.PodSandbox) (inspected, error) {
	status, d, err := c.container(ctx, id)
	if err != nil {
		return inspected{}, err
	}
	_, podDetails, err := c.pod(ctx, pod.GetId())
	if err != nil {
		return inspected{}, err
	}
	thing := inspected{
		Kind: "container", ID: id, Name: status.Metadata.GetName(), Pod: pod.GetMetadata().GetName(),
		State: state(status), Image: imageName(status), Log: status.LogPath,
	}
	if d.PID != 0 {
		thing.Process, err = hostview.Of(d.PID, podDetails.PID)
	}
	return thing, err
}

func (i inspected) init() string {
	if i.Init == 0 {
		return ""
	}
	return fmt.Sprintf("process %d, the first of the PID namespace that the containers share", i.Init)
}

func (i inspected) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\t%s\n", i.Kind, i.ID)
	for _, row := range [][2]string{
		{"name", i.Name}, {"pod", i.Pod}, {"state", i.State}, {"image", i.Image}, {"log", i.Log},
		{"addresses", strings.Join(i.IPs, " ")}, {"init", i.init()},
	} {
		if row[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", row[0], row[1])
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if i.Process != nil {
		if err := i.Process.Print(out); err != nil {
			return err
		}
	}
	for _, c := range i.Containers {
		fmt.Fprintln(out)
		if err := c.print(out); err != nil {
			return err
		}
	}
	return nil
}
