package kubelet

import (
	"fmt"
	"strings"
	"testing"
)

// TestProjectedVolumeFollowsItsSources changes a volume under a running
// container: the kubelet writes another folder and turns a link to it.
func TestProjectedVolumeFollowsItsSources(t *testing.T) {
	n, server := clustered(t, func(*node) {})
	const settings, hidden = "/api/v1/namespaces/default/configmaps/settings", "/api/v1/namespaces/default/secrets/hidden"
	server.put(settings, object{"kind": "ConfigMap", "apiVersion": "v1", "data": object{"one": "first"},
		"metadata": object{"name": "settings", "namespace": "default"}})
	server.put(hidden, object{"kind": "Secret", "apiVersion": "v1", "data": object{"word": []byte("secret")},
		"metadata": object{"name": "hidden", "namespace": "default"}})
	n.give("projected", nil)
	n.awaitReady("projected")
	for command, want := range map[string]string{
		"cat /all/labels":           `tier="front"`,
		"cat /all/settings/one":     "first",
		"cat /all/word":             "secret",
		"cat /etc/one":              "first",
		"stat -L -c %a /all/word":   "400",
		"stat -L -c %a /all/labels": "440",
	} {
		if got, err := n.tryRunAs("projected", "main", strings.Fields(command)...); err != nil || strings.TrimSpace(got) != want {
			t.Errorf("%s: %q, %v, want %q", command, got, err, want)
		}
	}
	if _, err := n.tryRunAs("projected", "main", "touch", "/all/new"); err == nil || !strings.Contains(err.Error(), "Read-only") {
		t.Errorf("a file in the volume: %v, want a read-only file system", err)
	}
	server.patch(settings, object{"data": object{"one": "second"}})
	n.within(2*patience, "the container sees the change", func() error {
		got, err := n.tryRunAs("projected", "main", "cat", "/all/settings/one")
		if err == nil && got != "second" {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
	// Kubernetes promises this as well: a file mounted by itself stays as it was.
	if got, err := n.tryRunAs("projected", "main", "cat", "/etc/one"); err != nil || got != "first" {
		t.Errorf("the file mounted by itself: %q, %v", got, err)
	}
	n.unharmed("projected")
	n.dismiss("projected")
}
