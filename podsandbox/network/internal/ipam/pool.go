// Package ipam chooses subnets and gives out the addresses in them.
//
// A Pool holds one subnet for each address family; a slot is a position in all
// of them at once, so that a pod's addresses end alike. The pool lives in
// memory: what is taken is told to it again at start. Choose finds a private
// range that no route of the host covers.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

const (
	firstSlot = 2       // 0 is the subnet's own, 1 the gateway's
	maxSlots  = 1 << 20 // enough for any node, and IPv6 subnets have 2^64
)

// ErrFull says that every address of the subnet is taken.
var ErrFull = errors.New("no free address")

// Pool gives out addresses. It is safe for concurrent use.
type Pool struct {
	subnets []netip.Prefix
	slots   uint32 // positions below this may be given

	mu     sync.Mutex
	taken  map[uint32]bool
	cursor uint32
}

// NewPool makes a pool of one subnet, or of one for each address family.
func NewPool(subnets []netip.Prefix) (*Pool, error) {
	p := &Pool{slots: maxSlots, taken: map[uint32]bool{}, cursor: firstSlot}
	for _, s := range subnets {
		if !s.IsValid() {
			return nil, fmt.Errorf("subnet %s is not valid", s)
		}
		s = s.Masked()
		for _, other := range p.subnets {
			if other.Addr().Is4() == s.Addr().Is4() {
				return nil, fmt.Errorf("subnets %s and %s are of the same address family", other, s)
			}
		}
		host := s.Addr().BitLen() - s.Bits()
		if host < 2 {
			return nil, fmt.Errorf("subnet %s has no room for a pod", s)
		}
		if host < 20 {
			size := uint32(1) << host
			if s.Addr().Is4() {
				size-- // the last one is the broadcast address
			}
			p.slots = min(p.slots, size)
		}
		p.subnets = append(p.subnets, s)
	}
	if len(p.subnets) == 0 {
		return nil, errors.New("no subnet")
	}
	return p, nil
}

// Subnets returns the subnets, in the order in which addresses are given.
func (p *Pool) Subnets() []netip.Prefix { return p.subnets }

// Take gives one address of each subnet. It goes round the whole subnet before
// it gives an address again: the previous owner may still be dying, and peers
// still remember it.
func (p *Pool) Take() ([]netip.Prefix, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.slots {
		slot := p.cursor
		if p.cursor++; p.cursor >= p.slots {
			p.cursor = firstSlot
		}
		if slot >= p.slots || p.taken[slot] {
			continue
		}
		p.taken[slot] = true
		given := make([]netip.Prefix, len(p.subnets))
		for i, s := range p.subnets {
			given[i] = netip.PrefixFrom(at(s, slot), s.Bits())
		}
		return given, nil
	}
	return nil, fmt.Errorf("subnet %s: %w: %d pods have one", p.subnets[0], ErrFull, len(p.taken))
}

// Claim marks addresses as taken that were given in an earlier life. Those of
// other subnets are ignored. It fails when another pod has one already.
func (p *Pool) Claim(given []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, slot := range p.slotsOf(given) {
		if p.taken[slot] {
			return fmt.Errorf("address %s is taken already", at(p.subnets[0], slot))
		}
		p.taken[slot] = true
		// Continue behind it: what was freed since is the best to rest longest.
		p.cursor = max(p.cursor, slot+1)
	}
	return nil
}

// Release takes addresses back.
func (p *Pool) Release(given []netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, slot := range p.slotsOf(given) {
		delete(p.taken, slot)
	}
}

// Taken counts the slots in use.
func (p *Pool) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken)
}

func (p *Pool) slotsOf(given []netip.Prefix) []uint32 {
	var slots []uint32
	for _, g := range given {
		for _, s := range p.subnets {
			slot, ok := position(s, g.Addr())
			if ok && (len(slots) == 0 || slots[0] != slot) {
				slots = append(slots, slot)
			}
		}
	}
	return slots
}

// Gateway is the address of the bridge in a subnet.
func Gateway(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(at(subnet.Masked(), 1), subnet.Bits())
}

// at is the address at a position of a subnet.
func at(subnet netip.Prefix, slot uint32) netip.Addr {
	ip := subnet.Addr().AsSlice()
	for i, carry := len(ip)-1, slot; carry != 0; i-- {
		carry += uint32(ip[i])
		ip[i] = byte(carry)
		carry >>= 8
	}
	a, _ := netip.AddrFromSlice(ip)
	return a
}

// position is the inverse of at.
func position(subnet netip.Prefix, ip netip.Addr) (uint32, bool) {
	if !subnet.Contains(ip) {
		return 0, false
	}
	base, full := subnet.Masked().Addr().AsSlice(), ip.AsSlice()
	var slot uint64
	for i := range full {
		slot = slot<<8 + uint64(full[i]-base[i]) // base is 0 where they differ
		if slot >= maxSlots {
			return 0, false
		}
	}
	return uint32(slot), true
}
