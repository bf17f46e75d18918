package registry

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteMirror writes a hosts.toml below directory that sends every pull, of any
// host, to the registry at url. An empty authority means no certificate file.
func WriteMirror(directory, url, authority string) error {
	path := filepath.Join(directory, "_default", "hosts.toml")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url)
	if authority != "" {
		text += fmt.Sprintf("  ca = %q\n", authority)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
