package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// poolBits is the length of the IPv4 subnets that Choose gives: 4093 pods.
const poolBits = 20

// ranges are searched in this order. The first keeps clear of what clusters
// use by custom: 10.96.0.0/12, 10.244.0.0/16, 10.42.0.0/15, 172.17.0.0/16.
var ranges = []netip.Prefix{
	netip.MustParsePrefix("10.192.0.0/11"),
	netip.MustParsePrefix("172.24.0.0/13"),
	netip.MustParsePrefix("192.168.128.0/17"),
}

// Choose finds an IPv4 subnet and, if wanted, an IPv6 one of the unique local
// range, that no route in use overlaps. The search begins at a place made from
// seed, so that two instances on a host, and two hosts, seldom choose alike.
func Choose(seed string, ipv6 bool, routes []netip.Prefix) ([]netip.Prefix, error) {
	hash := sha256.Sum256([]byte(seed))
	v4, err := chooseIPv4(binary.BigEndian.Uint32(hash[:]), routes)
	if err != nil {
		return nil, err
	}
	if !ipv6 {
		return []netip.Prefix{v4}, nil
	}
	for i := range 16 {
		ip := [16]byte{0: 0xfd}
		copy(ip[1:8], hash[i:])
		if v6 := netip.PrefixFrom(netip.AddrFrom16(ip), 64); !overlaps(v6, routes) {
			return []netip.Prefix{v4, v6}, nil
		}
	}
	return nil, fmt.Errorf("no free IPv6 subnet in fd00::/8: set a pod CIDR")
}

func chooseIPv4(start uint32, routes []netip.Prefix) (netip.Prefix, error) {
	for _, r := range ranges {
		count := uint32(1) << (poolBits - r.Bits())
		for i := range count {
			n := (start + i) % count
			base := binary.BigEndian.Uint32(r.Addr().AsSlice()) + n<<(32-poolBits)
			var ip [4]byte
			binary.BigEndian.PutUint32(ip[:], base)
			if s := netip.PrefixFrom(netip.AddrFrom4(ip), poolBits); !overlaps(s, routes) {
				return s, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("no private IPv4 range is free of host routes (tried %s): set a pod CIDR",
		strings.Trim(fmt.Sprint(ranges), "[]"))
}

// overlaps ignores default routes, which cover everything.
func overlaps(s netip.Prefix, routes []netip.Prefix) bool {
	for _, r := range routes {
		if r.IsValid() && r.Bits() > 0 && r.Overlaps(s) {
			return true
		}
	}
	return false
}

// Parse reads a pod CIDR as the kubelet sends it: one subnet, or two with a
// comma between them, one of each address family. IPv4 comes first.
func Parse(cidr string) ([]netip.Prefix, error) {
	var v4, v6 []netip.Prefix
	for _, part := range strings.Split(cidr, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, errors.New("want a range like 10.88.0.0/16")
		}
		if p.Addr().Is4() {
			v4 = append(v4, p.Masked())
		} else {
			v6 = append(v6, p.Masked())
		}
	}
	subnets := append(v4, v6...)
	if _, err := NewPool(subnets); err != nil {
		return nil, err
	}
	return subnets, nil
}
