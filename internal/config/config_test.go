package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func defaults() Config {
	return Config{
		Root: "/var/lib/cri-mini", State: "/run/cri-mini",
		RegistryConfigDir: "/etc/cri-mini/certs.d", CNIConfDir: "/etc/cni/net.d", CNIBinDir: "/opt/cni/bin", CDISpecDirs: "/etc/cdi,/var/run/cdi",
		Network: "auto", CgroupDriver: "auto", LayerForm: "auto", OpenFiles: 1048576, StreamAddress: "127.0.0.1:0", LogLevel: "info",
	}
}

func TestFileMistakesNameFileAndLine(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "root = \"/a\"\n\nrooot = \"/b\"\n", `:3: unknown key "rooot"`},
		{"unknown table", "root = \"/a\"\n[plugins]\nx = 1\n", `:2: unknown key "plugins"`},
		{"wrong type", "log-level = 3\n", ":1: "},
		{"no toml", "root = \"/a\"\nstate\n", ":2: "},
		{"twice", "root = \"/a\"\nroot = \"/b\"\n", ":2: "},
		{"case matters not to us but to flags", "LOG_LEVEL = \"info\"\n", `:1: unknown key "LOG_LEVEL"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			if err == nil || !strings.Contains(err.Error(), path+c.want) {
				t.Fatalf("Load: %v, want it to contain %s%s", err, path, c.want)
			}
		})
	}
}

func TestFileMayBeAbsentOnlyInItsDefaultPlace(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.toml")
	if _, err := Load(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that was named and is missing: %v, want an error that names it", err)
	}
	if values, err := load(missing, true); err != nil || values != nil {
		t.Errorf("a missing default file: %v, %v; want nothing", values, err)
	}
}

func TestValidateNamesKeyAndValue(t *testing.T) {
	if err := defaults().Validate(); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Root = "data" }, `root "data": want an absolute path`},
		{func(c *Config) { c.State = "" }, `state "": want an absolute path`},
		{func(c *Config) { c.State = c.Root + "/" }, `state "/var/lib/cri-mini/": is also the root`},
		{func(c *Config) { c.CNIBinDir = "./bin" }, `cni-bin-dir "./bin"`},
		{func(c *Config) { c.CDISpecDirs = "/etc/cdi, run/cdi" }, `cdi-spec-dirs "run/cdi": want an absolute path`},
		{func(c *Config) { c.Network = "bridge" }, `network "bridge": want one of auto, builtin, cni`},
		{func(c *Config) { c.CgroupDriver = "Systemd" }, `cgroup-driver "Systemd"`},
		{func(c *Config) { c.LayerForm = "tar" }, `layer-form "tar"`},
		{func(c *Config) { c.LogLevel = "trace" }, `log-level "trace"`},
		{func(c *Config) { c.StreamAddress = "127.0.0.1" }, `stream-address "127.0.0.1"`},
		{func(c *Config) { c.StreamHost = "node:1/x" }, `stream-host "node:1/x"`},
		{func(c *Config) { c.StreamCertificate = "/a.pem" }, `stream-key "": missing, for stream-certificate is given`},
		{func(c *Config) { c.StreamKey = "/a.pem" }, `stream-certificate "": missing, for stream-key is given`},
		{func(c *Config) { c.StreamCertificate, c.StreamKey = "a.pem", "/a.key" }, `stream-certificate "a.pem": want an absolute path`},
		{func(c *Config) { c.PodCIDR = "10.0.0.0" }, `pod-cidr "10.0.0.0"`},
		{func(c *Config) { c.PodCIDR = "10.0.0.0/8,10.1.0.0/16" }, `more than one range of a family`},
		{func(c *Config) { c.ClusterCIDR = "10.0.0.0/99" }, `cluster-cidr "10.0.0.0/99"`},
		{func(c *Config) { c.ClusterCIDR = "10.0.0.0/8,10.1.0.0/16" }, `a range is in another one`},
	} {
		config := defaults()
		c.change(&config)
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Validate: %v, want it to contain %s", err, c.want)
		}
	}
	if err := (Endpoint{Listen: "/run/x.sock"}).Validate(); err == nil || !strings.Contains(err.Error(), `listen "/run/x.sock"`) {
		t.Errorf("Validate: %v, want it to name listen and its value", err)
	}
}

func TestTextIsAFileThatSaysTheSame(t *testing.T) {
	config := defaults()
	config.PodCIDR = "10.9.0.0/16,fd00::/64"
	endpoint := Endpoint{Listen: "unix:///x/cri.sock"}
	text, err := Text(endpoint, config)
	if err != nil {
		t.Fatal(err)
	}
	values, err := parse("text", []byte(text))
	if err != nil {
		t.Fatalf("own text: %v\n%s", err, text)
	}
	for key, want := range map[string]any{"listen": endpoint.Listen, "pod-cidr": config.PodCIDR, "log-level": "info", "open-files": int64(1048576)} {
		if values[key] != want {
			t.Errorf("%s = %v, want %v", key, values[key], want)
		}
	}
}

func TestEachSocketHasAnAdminSocketOfItsOwn(t *testing.T) {
	for listen, want := range map[string]string{
		"unix:///run/cri-mini/cri.sock": "/run/cri-mini/admin.sock",
		"unix:///run/x/b.sock":          "/run/x/b.admin.sock",
		"unix:///run/x/b":               "/run/x/b.admin",
		"unix:///run/x/admin.sock":      "/run/x/admin.admin.sock",
		"unix:///b.sock":                "/b.admin.sock",
	} {
		if got := (Endpoint{Listen: listen}).AdminPath(); got != want {
			t.Errorf("%s: admin socket %s, want %s", listen, got, want)
		}
	}
}

func TestEveryKeyIsAFlagOfTheSameName(t *testing.T) {
	for _, typ := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[Endpoint]()} {
		for field := range typ.Fields() {
			if key, flag := field.Tag.Get("toml"), field.Tag.Get("name"); key == "" || key != flag || field.Tag.Get("help") == "" {
				t.Errorf("%s: key %q, flag %q: want the same name, and help", field.Name, key, flag)
			}
		}
	}
}

func FuzzParseNeverPanicsAndLocatesItsErrors(f *testing.F) {
	f.Add("root = \"/a\"\n")
	f.Add("a.b.c = [1, {x = 2}]\n[[root]]\n")
	f.Add("root = '''\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parse("f.toml", []byte(text)); err != nil && !strings.HasPrefix(err.Error(), "f.toml:") {
			t.Fatalf("error without a place: %v", err)
		}
	})
}
