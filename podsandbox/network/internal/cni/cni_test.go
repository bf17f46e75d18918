package cni

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"
)

func TestFirstValidFileWins(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"00-readme.txt":   "{}",
		"10-broken.conf":  "{",
		"20-two.conflist": `{"cniVersion":"1.0.0","name":"two","plugins":[{"type":"a"},{"type":"b","capabilities":{"portMappings":true}}]}`,
		"30-one.conf":     `{"cniVersion":"0.4.0","name":"one","type":"c"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(dir)
	if err != nil || c.Name() != "two" || strings.Join(c.Plugins(), " ") != "a b" || !c.Can("portMappings") || c.Can("bandwidth") {
		t.Fatalf("Load: %+v, %v; want network two with plugins a and b", c, err)
	}
	if err := os.Remove(c.File); err != nil {
		t.Fatal(err)
	}
	if c, err = Load(dir); err != nil || c.Name() != "one" || c.Version() != "0.4.0" {
		t.Fatalf("Load: %+v, %v; want network one", c, err)
	}
	if _, err := Load(filepath.Join(dir, "nothing")); !errors.Is(err, ErrNone) {
		t.Errorf("Load of a missing directory: %v; want ErrNone", err)
	}
}

// A list may take its plugins from a folder of its name; the attachment must
// not depend on the folder any more.
func TestAttachmentIsCompleteInItself(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"10-net.conflist": `{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"a"}]}`,
		"net/b.conf":      `{"type":"b"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(dir)
	if err != nil || strings.Join(c.Plugins(), " ") != "a b" {
		t.Fatalf("Load: %v, %v; want plugins a and b", c.Plugins(), err)
	}
	list, err := parse(c.Intend("x", "", "", nil, nil).Conflist)
	if err != nil || len(list.Plugins) != 2 || !list.LoadOnlyInlinedPlugins {
		t.Errorf("conflist of the attachment: %+v, %v; want both plugins and no more to load", list, err)
	}
}

func FuzzConflist(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"a"}]}`, `{"name":"n","type":"a"}`, `{`, `[]`, `null`,
		`{"name":1,"plugins":[{}]}`, `{"name":"n","plugins":{"type":"a"}}`, `{"name":"../n","cniVersions":["9"],"plugins":[null]}`,
		`{"name":"n","type":"a","plugins":[{"type":"b"}],"disableGC":"maybe"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parse(data)
		if err != nil {
			return
		}
		whole, err := complete(list)
		if err != nil {
			t.Fatalf("parsed but cannot be completed: %v", err)
		}
		if again, err := parse(whole); len(list.Plugins) > 0 && (err != nil || len(again.Plugins) != len(list.Plugins)) {
			t.Fatalf("%s became %s, %v", data, whole, err)
		}
	})
}

func FuzzPluginResult(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.0.0.1/8","interface":0}]}`,
		`{"cniVersion":"1.0.0","ips":[{"address":"fd00::1/64"}]}`, `{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.1/8","interface":-1}]}`,
		`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/8"}}`, `{"cniVersion":"1.0.0","interfaces":[null],"ips":[null,{"interface":0}]}`, `{}`, `null`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raw, err := create.CreateFromBytes(data)
		if err != nil {
			return
		}
		r, err := convert(raw)
		if err == nil && len(r.Addresses) == 0 {
			t.Error("a result without an address was accepted")
		}
		for _, a := range r.Addresses {
			if !a.IsValid() {
				t.Errorf("address %s of %s is not valid", a, data)
			}
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%s cannot be kept: %v", data, err)
		}
	})
}
