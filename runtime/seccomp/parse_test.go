package seccomp

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBadProfilesAreNamed(t *testing.T) {
	rule := func(r string) string { return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + r + `]}` }
	for want, text := range map[string]string{
		"not a profile: EOF": "",
		"not a profile: invalid character 'x' looking for beginning of value": "xyz",
		"not a profile: something follows the document":                       `{"defaultAction":"SCMP_ACT_ALLOW"} {}`,
		`not a profile: json: unknown field "defaultActoin"`:                  `{"defaultActoin":"SCMP_ACT_ALLOW"}`,
		`defaultAction "": unknown action`:                                    `{}`,
		`defaultAction "SCMP_ACT_NOTIFY": notifications are not supported`:    `{"defaultAction":"SCMP_ACT_NOTIFY"}`,
		`defaultErrnoRet 5: action SCMP_ACT_ALLOW returns no error`:           `{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":5}`,
		`defaultErrnoRet 4096: above 4095`:                                    `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}`,
		`listenerPath "/run/x": notifications are not supported`:              `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}`,
		`architectures "SCMP_ARCH_VAX": unknown architecture`:                 `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_VAX"]}`,
		`archMap "SCMP_ARCH_PDP": unknown architecture`:                       `{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_PDP"]}]}`,
		`architectures and archMap: both are given`:                           `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`,
		`flags "SECCOMP_FILTER_FLAG_FAST": unknown flag`:                      `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_FAST"]}`,
		`syscalls[0]: null`:                                                       rule(`null`),
		`syscalls[0].names: empty`:                                                rule(`{"action":"SCMP_ACT_ALLOW"}`),
		`syscalls[0].name "read": names is given too`:                             rule(`{"name":"read","names":["write"],"action":"SCMP_ACT_ALLOW"}`),
		`syscalls[0].action "ALLOW": unknown action`:                              rule(`{"names":["read"],"action":"ALLOW"}`),
		`syscalls[1].action "SCMP_ACT_NOTIFY": notifications are not supported`:   rule(`{"names":["read"],"action":"SCMP_ACT_ALLOW"},{"names":["read"],"action":"SCMP_ACT_NOTIFY"}`),
		`syscalls[0].errnoRet 3: action SCMP_ACT_KILL returns no error`:           rule(`{"names":["read"],"action":"SCMP_ACT_KILL","errnoRet":3}`),
		`syscalls[0].errnoRet 70000: above 65535`:                                 rule(`{"names":["read"],"action":"SCMP_ACT_TRACE","errnoRet":70000}`),
		`syscalls[0].args[0].op "SCMP_CMP_LIKE": unknown operator`:                rule(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_LIKE"}]}`),
		`syscalls[0].args[1].index 6: a call has 6 arguments`:                     rule(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":5,"value":1,"op":"SCMP_CMP_EQ"},{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}`),
		`syscalls[0].action "NO": unknown action`:                                 rule(`{"names":["read"],"action":"NO","includes":{"arches":["s390x"]}}`), // though it does not hold here
		`not a profile: invalid kernel version: "x", expected "<kernel>.<major>"`: rule(`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"x"}}`),
	} {
		if p, err := Parse([]byte(text)); err == nil || err.Error() != want || p != nil {
			t.Errorf("%s:\nerror %v\nwant  %s", text, err, want)
		}
	}
}

func TestLoadReadsOnlyRegularFilesOfSensibleSize(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const good = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat"],"action":"SCMP_ACT_ERRNO"}]}`
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("good", good), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "good"), link} {
		if _, err := Load(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file or directory",
		dir:                        "not a regular file",
		fifo:                       "not a regular file",
		"/dev/zero":                "not a regular file",
		file("large", good+strings.Repeat(" ", MaxFile)): "larger than 1048576 bytes",
		file("bad", `{"defaultAction":"NO"}`):            `defaultAction "NO": unknown action`,
	} {
		_, err := Load(path)
		if err == nil || !strings.HasSuffix(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Load(%s): %v, want %q", path, err, want)
		}
	}
}

func TestFlagsOfAProfile(t *testing.T) {
	for text, want := range map[string]uint{
		`{"defaultAction":"SCMP_ACT_ALLOW"}`:                                                                 unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		`{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}`:                                                      0,
		`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_TSYNC"]}`: unix.SECCOMP_FILTER_FLAG_LOG,
	} {
		if got := parse(t, text).Flags(); got != want {
			t.Errorf("%s: flags %#x, want %#x", text, got, want)
		}
	}
}

// Whatever is accepted compiles to a program that decides as the rules say.
func FuzzProfile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["socket","mmap"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":6,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"},{"index":1,"value":4294967296,"op":"SCMP_CMP_GT"}]}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","flags":[],"syscalls":[{"name":"read","action":"SCMP_ACT_LOG","includes":{"caps":["CAP_BPF"],"minKernel":"4.8"},"excludes":{"arches":["arm64"]}}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"names":["ipc","cacheflush"],"action":"SCMP_ACT_TRACE","errnoRet":1,"args":[{"index":0,"value":0,"op":"SCMP_CMP_NE"},{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_LE"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil || len(data) > 1<<16 {
			return
		}
		for _, m := range machines {
			if _, err := p.compile(m, kernel{6, 18}); err != nil {
				if !strings.Contains(err.Error(), "the kernel takes") {
					t.Fatal(err)
				}
				continue
			}
			compileChecked(t, p, m)
		}
	})
}

// Profiles that are well formed, of which random bytes rarely make one: the
// bytes are the dice of randomProfile.
func FuzzRules(f *testing.F) {
	for seed := range uint64(8) {
		dice := rand.New(rand.NewPCG(seed, 4))
		data := make([]byte, 1+dice.IntN(400))
		for i := range data {
			data[i] = byte(dice.IntN(256))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := parse(t, randomProfile(rand.New(&loaded{data, rand.NewPCG(0, uint64(len(data)))}), false))
		for _, m := range machines {
			compileChecked(t, p, m)
		}
	})
}

// loaded is dice that fall as data says, then as they like.
type loaded struct {
	data []byte
	then rand.Source
}

func (d *loaded) Uint64() uint64 {
	if len(d.data) == 0 {
		return d.then.Uint64()
	}
	n := d.data[0]
	d.data = d.data[1:]
	return uint64(n) * 0x0101010101010101 // IntN looks at high or at low bits
}
