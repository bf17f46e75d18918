package network

import (
	"os"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// SetupLoopback switches on the loopback device of a network namespace.
func SetupLoopback(ns *os.File) error {
	return netns.Do(ns, func() error {
		route, err := rtnl.Open(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer route.Close()
		var b rtnl.Batch
		b.LinkUp(1) // the loopback device is the first of every namespace
		return route.Do(&b)
	})
}
