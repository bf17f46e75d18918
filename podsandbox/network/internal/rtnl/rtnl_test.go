package rtnl

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
	"cri-mini/podsandbox/network/internal/netns"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func open(t *testing.T) *Socket {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var s *Socket
	err = netns.Do(ns, func() (err error) {
		s, err = Open(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestErrorNamesTheMessageThatFailed(t *testing.T) {
	s := open(t)
	for range 2 { // the second time, nothing of the first may be in the way
		var b Batch
		b.LinkUp(1)
		b.DelLink("nosuch")
		b.LinkUp(1)
		b.SetMaster("lo", 77)
		err := s.Do(&b)
		if !errors.Is(err, unix.ENODEV) || !strings.HasPrefix(err.Error(), "remove link nosuch: ") {
			t.Errorf("error %v; want ENODEV of the second message", err)
		}
		var good Batch
		good.LinkUp(1)
		if err := s.Do(&good); err != nil {
			t.Errorf("batch after a failed one: %v", err)
		}
	}
	links, err := s.Links(0)
	if err != nil || links[0].Name != "lo" || !links[0].Up || links[0].Index != 1 {
		t.Errorf("links %+v, %v; want lo up", links, err)
	}
}

func TestDumpStopsAtTheCallersError(t *testing.T) {
	s := open(t)
	want := errors.New("enough")
	var b Batch
	b.Begin(unix.RTM_GETLINK, 0, make([]byte, unix.SizeofIfInfomsg), "list links")
	if err := s.Dump(&b, func([]byte) error { return want }); err != want {
		t.Errorf("error %v; want the caller's", err)
	}
	if _, err := s.Addrs(); err != nil {
		t.Errorf("dump after a stopped one: %v", err)
	}
}

func TestClosedSocketSaysSo(t *testing.T) {
	s := open(t)
	s.Close()
	var b Batch
	b.LinkUp(1)
	if err := s.Do(&b); err == nil {
		t.Error("Do on a closed socket succeeded")
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func FuzzAttributes(f *testing.F) {
	var b Batch
	b.Nest(1, []byte{1, 2}, func() { b.Text(2, "eth0"); b.Uint32(3, 7) })
	f.Add(b.buf)
	f.Add([]byte{4, 0, 1, 0, 3, 0, 1, 0})
	f.Add([]byte{0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		Attributes(data, func(kind uint16, v []byte) { total += unix.SizeofRtAttr + len(v) })
		if total > len(data) {
			t.Errorf("attributes of %d bytes in %d", total, len(data))
		}
		parseLink(data)
	})
}
