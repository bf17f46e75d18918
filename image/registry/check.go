package registry

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// CheckConfig reads what an operator wrote for each registry, with its
// certificates, as a pull does. It gives the errors by registry, and all registries.
func CheckConfig(configDir string) (registries []string, wrong map[string]error, err error) {
	entries, err := os.ReadDir(configDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	wrong = map[string]error{}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		registries = append(registries, e.Name())
		domain := e.Name()
		if before, ok := strings.CutSuffix(domain, "_"); ok && domain != "_default" {
			domain = strings.Replace(before, "_", ":", 1)
		}
		hosts, err := findHosts(configDir, domain)
		for _, h := range hosts {
			if err == nil {
				_, err = tlsConfig(h)
			}
		}
		if err != nil {
			wrong[e.Name()] = err
		}
	}
	return registries, wrong, nil
}
