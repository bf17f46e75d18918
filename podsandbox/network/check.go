package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"cri-mini/internal/atomicfile"
	"cri-mini/internal/audit"
	"cri-mini/podsandbox/network/internal/bridge"
	"cri-mini/podsandbox/network/internal/ipam"
	"cri-mini/podsandbox/network/internal/netns"
)

// Check looks for what keeps the built-in network of an instance from working:
// subnets that the host reaches otherwise, and forwarding that somebody switched
// off. It changes nothing. The subnets are those of the options, or else those that
// a daemon wrote down; before its first start there are none.
func Check(opt Options) (subnets []netip.Prefix, found []audit.Finding, err error) {
	if err := opt.complete(); err != nil {
		return nil, nil, err
	}
	host, err := netns.Current()
	if err != nil {
		return nil, nil, err
	}
	defer host.Close()
	b, err := bridge.Open(opt.Bridge, opt.Instance, host, false)
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	routes, err := b.Routes()
	if err != nil {
		return nil, nil, err
	}
	if subnets, err = subnetsOf(opt); err != nil {
		return nil, nil, err
	}
	for _, s := range subnets {
		for _, r := range routes {
			if r.Bits() > 0 && r.Overlaps(s) {
				found = append(found, audit.Finding{About: audit.Wrong, Kind: "pod network", Name: s.String(),
					Why: fmt.Sprintf("the host has a route to %s, which overlaps: some of these addresses are not pods", r),
					Do:  "set pod-cidr to a range that nothing else uses, or remove the route"})
			}
		}
	}
	if b.Exists() { // so forwarding is wanted
		for _, s := range subnets {
			found = append(found, forwarding(s)...)
		}
	}
	return subnets, found, nil
}

func forwarding(s netip.Prefix) []audit.Finding {
	file := "/proc/sys/net/ipv4/ip_forward"
	if s.Addr().Is6() {
		file = "/proc/sys/net/ipv6/conf/all/forwarding"
	}
	value, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(value)) != "0" {
		return nil
	}
	why := "the host does not forward packets: pods reach nothing beyond it"
	if err != nil {
		why = err.Error()
	}
	return []audit.Finding{{About: audit.Wrong, Kind: "forwarding", Name: file, Why: why, Do: "find who switched it off; write 1 into the file"}}
}

func subnetsOf(opt Options) ([]netip.Prefix, error) {
	if opt.PodCIDR != "" {
		return ipam.Parse(opt.PodCIDR)
	}
	file := filepath.Join(opt.StateDir, "subnets.json")
	var kept subnetChoice
	err := atomicfile.ReadJSON(file, &kept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return kept.Subnets, nil
}
