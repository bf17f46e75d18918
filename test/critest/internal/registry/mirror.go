package registry

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"cri-mini/test/critest/internal/testimage"
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

// Serve starts a registry on a free port of the loopback device, for as long as
// this process lives, and writes a mirror for it below directory.
func Serve(images *testimage.Set, directory string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return ServeOn(listener, images, directory)
}

// ServeOn is Serve for a listener of the caller's.
func ServeOn(listener net.Listener, images *testimage.Set, directory string) error {
	server := &http.Server{Handler: &Handler{Images: images}}
	go func() { _ = server.Serve(listener) }()
	return WriteMirror(directory, "http://"+listener.Addr().String(), "")
}
