package bridge

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"cri-mini/podsandbox/network/internal/netns"
)

const sysctlRoot = "/proc/sys/"

// HasIPv6 tells whether the host's kernel speaks IPv6.
func HasIPv6(host *os.File) (has bool, err error) {
	err = netns.Do(host, func() error {
		value, err := os.ReadFile(sysctlRoot + "net/ipv6/conf/all/disable_ipv6")
		has = err == nil && !bytes.HasPrefix(value, []byte("1"))
		return nil
	})
	return has, err
}

// sysctls makes the host a router for its pods. Nothing of it is undone later:
// others may rely on it by then. Values that are right already are not written,
// so that hosts with read-only sysctls work when prepared.
func (b *Bridge) sysctls() error {
	return netns.Do(b.host, func() error {
		conf := "net/ipv4/conf/" + b.Name + "/"
		settings := [][2]string{
			// Host ports on 127.0.0.1; the firewall closes what else it would open.
			{conf + "route_localnet", "1"},
			{"net/ipv4/ip_forward", "1"},
		}
		if b.ipv6 {
			conf = "net/ipv6/conf/" + b.Name + "/"
			settings = append(settings, [2]string{conf + "disable_ipv6", "0"}, [2]string{conf + "accept_ra", "0"})
		}
		for _, s := range settings {
			if err := writeSysctl(s[0], s[1]); err != nil {
				return err
			}
		}
		if b.ipv6 {
			return forwardIPv6()
		}
		return nil
	})
}

// forwardIPv6 makes the host forward IPv6. A host that forwards ignores router
// advertisements unless told otherwise, and would lose its own default route
// with the next one that expires: interfaces that listened go on listening.
func forwardIPv6() error {
	const forwarding = "net/ipv6/conf/all/forwarding"
	if value, err := os.ReadFile(sysctlRoot + forwarding); err == nil && bytes.HasPrefix(value, []byte("1")) {
		return nil
	}
	listening, err := filepath.Glob(sysctlRoot + "net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range listening {
		value, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(value, []byte("1")) {
			continue // the interface is gone, or does not listen
		}
		if err := os.WriteFile(path, []byte("2"), 0o644); err != nil {
			return fmt.Errorf("keep router advertisements: %w", err)
		}
	}
	return writeSysctl(forwarding, "1")
}

// writeSysctl acts on the calling thread's network namespace.
func writeSysctl(name, value string) error {
	path := sysctlRoot + name
	if now, err := os.ReadFile(path); err == nil && string(bytes.TrimSpace(now)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}
