package selinux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine has the files that matter. A nil text is no file.
func machine(t *testing.T, change map[string]string) *Node {
	t.Helper()
	files := map[string]string{
		"proc/self/attr/current":                     "system_u:system_r:container_runtime_t:s0\x00",
		"sys/fs/selinux/enforce":                     "1",
		"sys/fs/selinux/context":                     "",
		"etc/selinux/config":                         "# SELINUXTYPE=none\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
		"etc/selinux/targeted/contexts/lxc_contexts": "process = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\nfile = \"system_u:object_r:container_file_t:s0\"\nro_file=\"y\"\n",
	}
	for name, text := range change {
		files[name] = text
	}
	root := t.TempDir()
	for name, text := range files {
		if text == "none" {
			continue
		}
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Node{Root: root}
}

const contexts = "etc/selinux/targeted/contexts/lxc_contexts"

func TestPolicyOfTheNodeIsFound(t *testing.T) {
	p, err := machine(t, nil).Policy()
	if err != nil || p == nil {
		t.Fatalf("policy %v, %v", p, err)
	}
	if p.Process.Type != "container_t" || p.File.String() != "system_u:object_r:container_file_t:s0" || p.Privileged != "system_u:system_r:spc_t:s0" {
		t.Errorf("policy is %+v", p)
	}
	// The kernel does not know spc_t: it cannot be asked for.
	p, err = machine(t, map[string]string{"sys/fs/selinux/context": "none"}).Policy()
	if err != nil || p.Privileged != "" {
		t.Errorf("without spc_t: %+v, %v", p, err)
	}
}

func TestPolicyThatIsMissingIsAnErrorOnlyWhereItIsEnforced(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		say    string // of the error; "" is no policy and no error
	}{
		"no policy loaded":              {map[string]string{"proc/self/attr/current": "kernel"}, ""},
		"enforced, no labels":           {map[string]string{contexts: "none"}, "container-selinux"},
		"enforced, no label of files":   {map[string]string{contexts: "process = \"a:b:c:s0\"\n"}, "file"},
		"enforced, a label is none":     {map[string]string{contexts: "process = \"x\"\nfile = \"a:b:c:s0\"\n"}, "process"},
		"enforced, no configuration":    {map[string]string{"etc/selinux/config": "none"}, "config"},
		"enforced, policy leads out":    {map[string]string{"etc/selinux/config": "SELINUXTYPE=../../tmp\n"}, "../../tmp"},
		"only watched, no labels":       {map[string]string{contexts: "none", "sys/fs/selinux/enforce": "0"}, ""},
		"enforcement cannot be learned": {map[string]string{contexts: "none", "sys/fs/selinux/enforce": "none"}, "enforce"},
	} {
		p, err := machine(t, c.change).Policy()
		if p != nil || (err == nil) != (c.say == "") || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: policy %+v, %v; want an error with %q", name, p, err, c.say)
		}
	}
}

// The machine that tests this: nothing is confined where nothing can be.
func TestNodeWithoutSELinuxHasNoPolicy(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		return
	}
	if p, err := new(Node).Policy(); p != nil || err != nil {
		t.Errorf("policy %+v, %v", p, err)
	}
	if err := new(Node).Valid("system_u:system_r:container_t:s0"); err == nil {
		t.Error("a label is valid without SELinux")
	}
}
