package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	result "github.com/containernetworking/cni/pkg/types/100"
)

// Interface is the name of the interface that plugins make in a pod.
const Interface = "eth0"

// Attachment is a pod's connection to a network, or the intent to make it.
type Attachment struct {
	Network      string
	Conflist     json.RawMessage // as it was then; complete in itself
	Container    string
	NetNS        string // the path that plugins were given
	Namespace    string // the identity of what it led to
	Args         [][2]string
	Capabilities map[string]any
}

// Result is what plugins report of a new connection.
type Result struct {
	Addresses  []netip.Prefix
	Interfaces []Device
}

// Device is an interface in the pod.
type Device struct{ Name, MAC string }

// Plugins runs the plugins of networks.
type Plugins struct {
	dirs   []string
	runner *runner
	cni    *libcni.CNIConfig
}

// NewPlugins finds programs in dirs, a list with colons between, and keeps
// results in cache. Each program gets at most limit to do its work.
func NewPlugins(dirs, cache string, host *os.File, limit time.Duration) *Plugins {
	p := &Plugins{dirs: filepath.SplitList(dirs), runner: &runner{host: host, limit: limit}}
	p.cni = libcni.NewCNIConfigWithCacheDir(p.dirs, cache, p.runner)
	return p
}

// Intend describes the connection of a container to a network before it is
// made.
func (c *Conflist) Intend(container, netns, identity string, args [][2]string, capabilities map[string]any) *Attachment {
	return &Attachment{
		Network: c.list.Name, Conflist: c.list.Bytes, Container: container,
		NetNS: netns, Namespace: identity, Args: args, Capabilities: capabilities,
	}
}

func (a *Attachment) conf(netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: a.Container, NetNS: netns, IfName: Interface,
		Args: a.Args, CapabilityArgs: a.Capabilities,
	}
}

// Attach makes the connection.
func (p *Plugins) Attach(ctx context.Context, a *Attachment) (Result, error) {
	list, err := libcni.NetworkConfFromBytes(a.Conflist)
	if err != nil {
		return Result{}, err
	}
	raw, err := p.cni.AddNetworkList(ctx, list, a.conf(a.NetNS))
	if err != nil {
		return Result{}, fmt.Errorf("network %s: %w", a.Network, err)
	}
	r, err := convert(raw)
	if err != nil {
		return Result{}, fmt.Errorf("network %s: %w", a.Network, err)
	}
	return r, nil
}

// Detach undoes the connection, from whatever state. netns is empty when the
// namespace is gone; plugins then go by the cached result.
func (p *Plugins) Detach(ctx context.Context, a *Attachment, netns string) error {
	list, err := libcni.NetworkConfFromBytes(a.Conflist)
	if err != nil {
		return err
	}
	if err := p.cni.DelNetworkList(ctx, list, a.conf(netns)); err != nil {
		return fmt.Errorf("network %s: %w", a.Network, err)
	}
	return nil
}

// Collect has plugins remove what belongs to none of these containers, and
// undoes cached connections of others.
func (p *Plugins) Collect(ctx context.Context, c *Conflist, containers []string) error {
	valid := []types.GCAttachment{}
	for _, id := range containers {
		valid = append(valid, types.GCAttachment{ContainerID: id, IfName: Interface})
	}
	if err := p.cni.GCNetworkList(ctx, c.list, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		return fmt.Errorf("network %s: %w", c.Name(), err)
	}
	return nil
}

// Find tells whether all programs of a network are there.
func (p *Plugins) Find(c *Conflist) error {
	var failed error
	for _, conf := range c.list.Plugins {
		_, err := p.runner.FindInPath(conf.Network.Type, p.dirs)
		if ipam := conf.Network.IPAM.Type; err == nil && ipam != "" {
			_, err = p.runner.FindInPath(ipam, p.dirs)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// Validate asks all programs whether they know the network's version.
func (p *Plugins) Validate(ctx context.Context, c *Conflist) error {
	_, err := p.cni.ValidateNetworkList(ctx, c.list)
	return err
}

// Status asks the plugins whether they could connect a pod now. Networks of an
// older version than 1.1.0 cannot be asked.
func (p *Plugins) Status(ctx context.Context, c *Conflist) error {
	return p.cni.GetStatusNetworkList(ctx, c.list)
}

func convert(raw types.Result) (Result, error) {
	full, err := result.NewResultFromResult(raw)
	if err != nil {
		return Result{}, err
	}
	var r Result
	for _, i := range full.Interfaces {
		if i != nil && i.Sandbox != "" {
			r.Interfaces = append(r.Interfaces, Device{Name: i.Name, MAC: i.Mac})
		}
	}
	for _, ip := range full.IPs {
		if ip == nil || !ofPod(full, ip) {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		if !ok {
			return Result{}, fmt.Errorf("plugin returned the address %q", ip.Address.String())
		}
		r.Addresses = append(r.Addresses, netip.PrefixFrom(addr.Unmap(), bits))
	}
	if len(r.Addresses) == 0 {
		return Result{}, errors.New("plugins returned no address for the pod")
	}
	return r, nil
}

// ofPod tells whether an address is in the pod; an index may lead nowhere.
func ofPod(full *result.Result, ip *result.IPConfig) bool {
	if ip.Interface == nil {
		return true
	}
	i := *ip.Interface
	return i >= 0 && i < len(full.Interfaces) && full.Interfaces[i] != nil && full.Interfaces[i].Sandbox != ""
}
