// Package cni connects pods by external CNI plugins.
//
// A Conflist is a network as a file describes it, with all its plugins. An
// Attachment is one pod's connection to it: enough to undo it when file and
// namespace are gone. Plugins runs the programs, each in the host's network
// namespace, in a process group of its own, with a limit of time and of output.
// The package keeps no list of attachments; the caller must have written one
// down before it is made.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// maxFile is more than any configuration needs.
const maxFile = 1 << 20

// ErrNone says that a directory holds no configuration.
var ErrNone = errors.New("no network configuration")

// Conflist is a network. It does not change.
type Conflist struct {
	File   string
	ReadAt time.Time
	list   *libcni.NetworkConfigList
}

// Name is the name of the network.
func (c *Conflist) Name() string { return c.list.Name }

// Version is the version of the CNI specification that the file asks for.
func (c *Conflist) Version() string { return c.list.CNIVersion }

// Plugins are the names of the programs, in the order in which they run.
func (c *Conflist) Plugins() []string {
	var names []string
	for _, p := range c.list.Plugins {
		names = append(names, p.Network.Type)
	}
	return names
}

// Can tells whether a plugin of the network takes a capability argument.
func (c *Conflist) Can(capability string) bool {
	return slices.ContainsFunc(c.list.Plugins, func(p *libcni.PluginConfig) bool {
		return p.Network.Capabilities[capability]
	})
}

// Load reads the first valid file of a directory, in the order of names. When
// none is valid the error says what is wrong with each.
func Load(dir string) (*Conflist, error) {
	files, err := candidates(dir)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, file := range files {
		c, err := read(file)
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", file, err))
	}
	if failed == nil {
		failed = fmt.Errorf("%w in %s", ErrNone, dir)
	}
	return nil, failed
}

// candidates are the files of a directory that look like configurations.
func candidates(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read CNI configuration: %w", err)
	}
	var files []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conflist", ".conf", ".json":
			if !e.IsDir() {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	return files, nil
}

func read(file string) (*Conflist, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("not a regular file of at most %d bytes", maxFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := parse(data)
	if err != nil {
		return nil, err
	}
	if !list.LoadOnlyInlinedPlugins {
		more, err := libcni.NetworkPluginConfsFromFiles(filepath.Dir(file), list.Name)
		if err != nil {
			return nil, err
		}
		list.Plugins = append(list.Plugins, more...)
	}
	if len(list.Plugins) == 0 {
		return nil, errors.New("no plugins")
	}
	if list.Bytes, err = complete(list); err != nil {
		return nil, err
	}
	return &Conflist{File: file, ReadAt: time.Now(), list: list}, nil
}

// parse reads a list of plugins, or the older form of a single plugin.
func parse(data []byte) (*libcni.NetworkConfigList, error) {
	var single struct {
		Name       string
		CNIVersion string
		Type       string
	}
	if err := json.Unmarshal(data, &single); err != nil {
		return nil, err
	}
	if single.Type != "" {
		var err error
		data, err = json.Marshal(map[string]any{
			"name": single.Name, "cniVersion": single.CNIVersion, "plugins": []json.RawMessage{data}})
		if err != nil {
			return nil, err
		}
	}
	list, err := libcni.NetworkConfFromBytes(data)
	if err == nil && list.Name == "" {
		err = errors.New("no name")
	}
	return list, err
}

// complete makes the text of a list that needs no other file.
func complete(list *libcni.NetworkConfigList) ([]byte, error) {
	whole := map[string]any{}
	if err := json.Unmarshal(list.Bytes, &whole); err != nil {
		return nil, err
	}
	var plugins []json.RawMessage
	for _, p := range list.Plugins {
		plugins = append(plugins, p.Bytes)
	}
	whole["plugins"], whole["loadOnlyInlinedPlugins"] = plugins, true
	return json.Marshal(whole)
}
