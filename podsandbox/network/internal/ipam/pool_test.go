package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(s ...string) (all []netip.Prefix) {
	for _, p := range s {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestTakeGivesEveryAddressOnceAndFreedOnesLast(t *testing.T) {
	p, err := NewPool(prefixes("10.0.0.248/29", "fd00::/64"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 5 {
		given, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(given))
		if len(got) == 2 {
			p.Release(given)
		}
	}
	want := []string{"[10.0.0.250/29 fd00::2/64]", "[10.0.0.251/29 fd00::3/64]", "[10.0.0.252/29 fd00::4/64]",
		"[10.0.0.253/29 fd00::5/64]", "[10.0.0.254/29 fd00::6/64]"}
	if !slices.Equal(got, want) {
		t.Errorf("given %v; want %v", got, want)
	}
	if given, err := p.Take(); err != nil || fmt.Sprint(given) != want[1] {
		t.Errorf("after one was freed: %v, %v; want %s", given, err, want[1])
	}
	if _, err := p.Take(); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "10.0.0.248/29") {
		t.Errorf("full pool: %v; want ErrFull with the subnet", err)
	}
}

func TestClaimedAddressesAreNotGiven(t *testing.T) {
	p, _ := NewPool(prefixes("10.0.0.0/29"))
	if err := p.Claim(prefixes("10.0.0.3/29")); err != nil {
		t.Fatal(err)
	}
	if err := p.Claim(prefixes("10.0.0.3/29")); err == nil {
		t.Error("one address was claimed twice")
	}
	if err := p.Claim(prefixes("10.9.0.3/29", "fd00::1/64")); err != nil || p.Taken() != 1 {
		t.Errorf("claim of other subnets: %v, %d taken; want 1", err, p.Taken())
	}
	var got []string
	for range 4 {
		given, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, given[0].Addr().String())
	}
	if want := []string{"10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"}; !slices.Equal(got, want) {
		t.Errorf("given %v; want %v", got, want)
	}
}

func TestChooseAvoidsRoutes(t *testing.T) {
	first, err := Choose("a", true, prefixes("0.0.0.0/0", "::/0"))
	if err != nil || len(first) != 2 {
		t.Fatalf("chose %v, %v", first, err)
	}
	for _, routes := range [][]netip.Prefix{first, {netip.PrefixFrom(first[0].Addr(), 32)}, prefixes("10.0.0.0/8"), prefixes("10.0.0.0/8", "172.16.0.0/12")} {
		got, err := Choose("a", true, routes)
		if err != nil || overlaps(got[0], routes) || overlaps(got[1], routes) {
			t.Errorf("with routes %v: %v, %v", routes, got, err)
		}
	}
	if _, err := Choose("a", false, prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")); err == nil || !strings.Contains(err.Error(), "set a pod CIDR") {
		t.Errorf("all ranges in use: %v; want an error that says what to do", err)
	}
	if other, _ := Choose("b", false, nil); other[0] == first[0] {
		t.Errorf("instances a and b both chose %s", other[0])
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"10.0.0.0/24", "10.0.0.0/24,fd00::/64", "fd00::/64, 10.0.0.0/8", "", "10.0.0.0/31", "::ffff:10.0.0.0/120", "10.0.0.0/24,10.1.0.0/24", "fe80::%1/64"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		subnets, err := Parse(s)
		if err != nil {
			return
		}
		p, err := NewPool(subnets)
		if err != nil {
			t.Fatalf("Parse(%q) = %v, which NewPool refuses: %v", s, subnets, err)
		}
		given, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range given {
			if slot, ok := position(subnets[i], g.Addr()); !ok || slot != firstSlot || at(subnets[i], slot) != g.Addr() {
				t.Errorf("%s in %s: position %d, %v", g, subnets[i], slot, ok)
			}
		}
	})
}
