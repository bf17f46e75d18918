package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"cri-mini/internal/config"
)

// command runs the command line; every daemon it could talk to is missing.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = execute(context.Background(), append(args, "--listen=unix://"+t.TempDir()+"/cri.sock"), &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestErrorsAreOneLineAndAHint(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("\nnetwrk = \"cni\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good.toml")
	if err := os.WriteFile(good, []byte("root = \"/elsewhere\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want []string // a line each
	}{
		{[]string{"ps"}, 1, []string{"no daemon answers at ", "start the daemon with: cri-mini serve --listen unix://"}},
		{[]string{"pull", "example.com/x"}, 1, []string{"no daemon answers at ", "start the daemon with: "}},
		{[]string{"stop", "--pods", "--config=" + good}, 1, []string{"no daemon answers at ",
			"start the daemon with: cri-mini serve --config " + good + " --listen unix://"}},
		{[]string{"stop", "--pods"}, 1, []string{"no daemon answers at ", ", and with the same --root and --state as before"}},
		{[]string{"pull", "example.com/x", "--user=me"}, 1, []string{"--user and --password-stdin go together", "see: cri-mini pull --help"}},
		{[]string{"pull"}, 1, []string{"expected \"<image>\"", "see: cri-mini pull --help"}},
		{[]string{"run"}, 125, []string{"run: give an IMAGE, or --rootfs", "see: cri-mini run --help"}},
		{[]string{"serve", "--config=" + bad}, 1, []string{bad + `:2: unknown key "netwrk"`}},
		{[]string{"config", "--config=" + bad}, 1, []string{bad + `:2: unknown key "netwrk"`}},
		{[]string{"serve", "--network=bridge"}, 1, []string{`network "bridge": want one of auto, builtin, cni`}},
		{[]string{"serve", "--cgroup-driver=Systemd"}, 1, []string{`cgroup-driver "Systemd": want one of auto, cgroupfs, systemd`}},
		{[]string{"serve", "--root=here"}, 1, []string{`root "here": want an absolute path`}},
		{[]string{"serve", "--nonsense"}, 1, []string{"unknown flag --nonsense", "see: cri-mini serve --help"}},
		{[]string{"dance"}, 1, []string{"dance", "see: cri-mini --help"}},
	} {
		code, stdout, stderr := command(t, c.args...)
		lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
		if code != c.code || stdout != "" || len(lines) != len(c.want) {
			t.Errorf("%v: exit %d, stdout %q, stderr %q; want exit %d and %d lines", c.args, code, stdout, stderr, c.code, len(c.want))
			continue
		}
		for i, want := range c.want {
			if !strings.HasPrefix(lines[i], "cri-mini: ") || !strings.Contains(lines[i], want) {
				t.Errorf("%v: line %q, want %q", c.args, lines[i], want)
			}
		}
	}
}

func TestConfigShowsWhatIsInEffect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(file, []byte("log-level = \"debug\"\nnetwork = \"builtin\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := command(t, "config", "--config="+file, "--network=cni")
	if code != 0 || errOut != "" {
		t.Fatalf("exit %d, %s", code, errOut)
	}
	for _, want := range []string{"log-level = 'debug'", "network = 'cni'", "root = '/var/lib/cri-mini'", "listen = 'unix:///"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %s:\n%s", want, out)
		}
	}
}

// A value in the configuration file must not change what another command's
// flag of the same name means. A command that takes the whole configuration
// means the same by it.
func TestNoFlagBesidesThoseOfServeIsNamedLikeAKey(t *testing.T) {
	keys, own := map[string]bool{}, map[string]bool{}
	for field := range reflect.TypeFor[config.Endpoint]().Fields() {
		keys[field.Tag.Get("toml")] = true
	}
	for field := range reflect.TypeFor[config.Config]().Fields() {
		keys[field.Tag.Get("toml")], own[field.Tag.Get("toml")] = true, true
	}
	parser, err := kong.New(&commandLine{}, kong.Vars{"configFile": ""})
	if err != nil {
		t.Fatal(err)
	}
	whole := []string{"serve", "config", "doctor", "gc"}
	for _, node := range parser.Model.Children {
		named := map[string]bool{}
		for _, flag := range node.Flags {
			named[flag.Name] = true
		}
		takesAll := slices.Contains(whole, node.Name)
		for key := range keys {
			if !takesAll && named[key] {
				t.Errorf("%s --%s is named like a key of the configuration", node.Name, key)
			}
			if takesAll && own[key] && !named[key] {
				t.Errorf("%s does not take --%s", node.Name, key)
			}
		}
	}
	for key := range keys {
		if _, _, errOut := command(t, "config", "--"+key); strings.Contains(errOut, "unknown flag") {
			t.Errorf("key %s is not a flag", key)
		}
	}
}

func TestHelpIsAlsoAWord(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"help"}, []string{"--help"}},
		{[]string{"help", "run"}, []string{"run", "--help"}},
		{[]string{"logs", "help"}, []string{"logs", "help"}},
		{nil, nil},
	} {
		if got := helpWanted(c.args); !slices.Equal(got, c.want) {
			t.Errorf("%q becomes %q, want %q", c.args, got, c.want)
		}
	}
}
