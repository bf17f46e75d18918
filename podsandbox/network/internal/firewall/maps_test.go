package firewall

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestIntervalsEndBehindTheSubnet(t *testing.T) {
	for _, c := range []struct{ subnet, want string }{
		{"10.0.0.0/24", "10.0.0.0 10.0.1.0"},
		{"10.0.15.9/20", "10.0.0.0 10.0.16.0"},
		{"255.255.255.0/24", "255.255.255.0"}, // ends with the address space
		{"fd00::/64", "fd00:: fd00:0:0:1::"},
	} {
		p := netip.MustParsePrefix(c.subnet)
		var got string
		for _, e := range intervals([]netip.Prefix{p}, p.Addr().Is6()) {
			ip, _ := netip.AddrFromSlice(e.Key)
			if got != "" {
				got += " "
			}
			got += fmt.Sprint(ip)
		}
		if got != c.want {
			t.Errorf("%s: %s; want %s", c.subnet, got, c.want)
		}
	}
}

func TestPortGoesToTheMapOfItsAddress(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("[fd00::2]:80")
	table := New("test", nil)
	for _, c := range []struct {
		port Port
		set  string
		key  string
	}{
		{Port{6, netip.Addr{}, 8080, v4}, "ports", "060000001f900000"},
		{Port{6, netip.IPv4Unspecified(), 8080, v4}, "ports", "060000001f900000"},
		{Port{17, netip.MustParseAddr("192.0.2.1"), 8080, v4}, "ports-ip", "c0000201110000001f900000"},
		{Port{132, netip.Addr{}, 1, v6}, "ports6", "8400000000010000"},
		{Port{6, netip.IPv6Loopback(), 1, v6}, "ports6-ip", "000000000000000000000000000000010600000000010000"},
	} {
		all := table.elements([]Port{c.port})
		for set, elements := range all {
			if got := fmt.Sprintf("%x", elements[0].Key); len(all) != 1 || set.Name != c.set || got != c.key {
				t.Errorf("%+v: %s %s in %d maps; want %s %s in one", c.port, set.Name, got, len(all), c.set, c.key)
			}
		}
	}
}
