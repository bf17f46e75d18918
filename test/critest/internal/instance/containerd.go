package instance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cri-mini/test/critest/internal/place"
)

// Containerd is one instance, with its defaults but for folders. The exported
// fields are set before Start.
type Containerd struct {
	Programs string // folder of containerd, its shim, runc, crun and cni/
	Handler  string // the program that makes containers: runc or crun
	Pause    string // image
	Work     string // parent of all its directories
	Log      string
	Place    *place.Place

	process
}

// restrict_oom_score_adj: a machine may lack the right to lower that number.
const containerdConfig = `version = 3
root = "WORK/root"
state = "/run/containerd"
[grpc]
address = "WORK/cri.sock"
[ttrpc]
address = "WORK/ttrpc.sock"
[plugins.'io.containerd.internal.v1.opt']
path = "WORK/opt"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "PAUSE"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "WORK/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["PROGRAMS/cni"]
conf_dir = "WORK/cni.conf"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "HANDLER"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.HANDLER]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.HANDLER.options]
BinaryName = "PROGRAMS/HANDLER"
`

// cniConfig is the bridge as containerd's own script for the plugins sets it up.
const cniConfig = `{"cniVersion": "1.0.0", "name": "bench", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true, "ipam":
  {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`

// Registries is the directory of hosts.toml files.
func (d *Containerd) Registries() string { return filepath.Join(d.Work, "certs.d") }

// Endpoint is where it listens.
func (d *Containerd) Endpoint() string { return "unix://" + filepath.Join(d.Work, "cri.sock") }

func (d *Containerd) config() string { return filepath.Join(d.Work, "config.toml") }

// Start returns when the daemon answers.
func (d *Containerd) Start() error {
	if err := os.Remove(d.Log); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	conf := filepath.Join(d.Work, "cni.conf")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return err
	}
	text := strings.NewReplacer("WORK", d.Work, "PAUSE", d.Pause, "PROGRAMS", d.Programs, "HANDLER", d.Handler).Replace(containerdConfig)
	if err := os.WriteFile(d.config(), []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(conf, "10-bench.conflist"), []byte(cniConfig), 0o644); err != nil {
		return err
	}
	return d.Restart()
}

// Restart starts a daemon that was ended, and keeps its log.
func (d *Containerd) Restart() error {
	cmd := d.Place.Command(filepath.Join(d.Programs, "containerd"), "--config", d.config())
	// The daemon looks for its shim there.
	cmd.Env = append(os.Environ(), fmt.Sprintf("PATH=%s:%s", d.Programs, os.Getenv("PATH")))
	if preload := filepath.Join(d.Programs, "memlock.so"); d.Handler == "crun" && fileExists(preload) {
		cmd.Env = append(cmd.Env, "LD_PRELOAD="+preload)
	}
	if err := d.start(cmd, d.Log); err != nil {
		return err
	}
	return d.waitReady(d.Endpoint(), 2*time.Minute)
}

// Stop ends the daemon. Pods go on.
func (d *Containerd) Stop() error {
	if err := d.alive(); err != nil {
		return err
	}
	if err := d.terminate(); err != nil {
		return err
	}
	return d.end()
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
