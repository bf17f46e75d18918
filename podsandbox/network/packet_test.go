package network

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/netns"
)

// sctpInit is a packet with an INIT chunk.
func sctpInit(from, to uint16) []byte {
	p := make([]byte, 12+20)
	binary.BigEndian.PutUint16(p[0:], from)
	binary.BigEndian.PutUint16(p[2:], to)
	p[12] = 1                                // INIT
	binary.BigEndian.PutUint16(p[14:], 20)   // length of the chunk
	binary.BigEndian.PutUint32(p[16:], 1)    // initiate tag
	binary.BigEndian.PutUint32(p[20:], 1500) // window
	binary.BigEndian.PutUint16(p[24:], 1)    // streams out
	binary.BigEndian.PutUint16(p[26:], 1)    // streams in
	binary.BigEndian.PutUint32(p[28:], 1)    // sequence number
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// sendLoopback writes an IPv4 packet to 127.0.0.1 straight onto the wire from
// a pod to the bridge.
func sendLoopback(fd int, w *world, from netip.Addr) error {
	var mac net.HardwareAddr
	if err := netns.Do(w.host, func() error {
		i, err := net.InterfaceByName(w.net.builtin.bridge.Name)
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	}); err != nil {
		return err
	}
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	p := make([]byte, 20+8)
	p[0], p[8], p[9] = 0x45, 64, 253
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.Next().AsSlice())
	copy(p[16:], []byte{127, 0, 0, 1})
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	to := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: eth0.Index, Halen: 6}
	copy(to.Addr[:], mac)
	return unix.Sendto(fd, p, 0, to)
}
