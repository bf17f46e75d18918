package registry

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWrongConfigurationOfARegistryIsNamed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.test":       `server = "https://good.test"`,
		"bad.test":        `server = 3`,
		"port.test_5000_": "[host.\"http://127.0.0.1:1\"]\nca = \"/no/such/file\"\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "hosts.toml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names, wrong, err := CheckConfig(dir)
	if err != nil || !slices.Equal(names, []string{"bad.test", "good.test", "port.test_5000_"}) {
		t.Fatalf("registries %q, %v", names, err)
	}
	if len(wrong) != 2 || !strings.Contains(wrong["bad.test"].Error(), "hosts.toml") || !strings.Contains(wrong["port.test_5000_"].Error(), "/no/such/file") {
		t.Errorf("wrong: %v", wrong)
	}
	if names, wrong, err := CheckConfig(filepath.Join(dir, "missing")); err != nil || len(names)+len(wrong) > 0 {
		t.Errorf("no folder: %q %v %v", names, wrong, err)
	}
}
