package plan

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ResolvConf is the pod's own /etc/resolv.conf, or nil when it asks for
// nothing and the node's will do.
func ResolvConf(dns *criapi.DNSConfig) []byte {
	var b bytes.Buffer
	for _, s := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(dns.GetSearches()) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(dns.Searches, " "))
	}
	if len(dns.GetOptions()) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(dns.Options, " "))
	}
	return b.Bytes()
}

// Hosts is /etc/hosts of a pod with its own network.
func Hosts(hostname string, ips []netip.Addr) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, ip := range ips {
		fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
	}
	return b.Bytes()
}

// OnlyLoopback says that all servers of a resolv.conf are on the node's
// loopback, where a pod with its own network cannot reach them.
func OnlyLoopback(resolvConf []byte) bool {
	found := false
	for line := range strings.Lines(string(resolvConf)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		ip, err := netip.ParseAddr(words[1])
		if err != nil || !ip.IsLoopback() {
			return false
		}
		found = true
	}
	return found
}
