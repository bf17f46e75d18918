package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCountsTestsAndPackagesThatFailWithoutOne(t *testing.T) {
	const events = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: kernel feature missing: idmapped mounts\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:3: not today\n"}
{"Action":"skip","Package":"p","Test":"TestD"}
{"Action":"pass","Package":"p"}
{"Action":"output","Package":"q","Output":"left behind: mount\n"}
{"Action":"fail","Package":"q"}
{"Action":"output","Package":"r","Output":"testing: warning: no tests to run\n"}
{"Action":"pass","Package":"r"}
{"Action":"skip","Package":"without/tests"}
`
	var out bytes.Buffer
	r := newReport(&out)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if r.passed != 1 || len(r.failed) != 3 || len(r.skips) != 1 {
		t.Errorf("got %d passed, %d failed, %d skipped, want 1, 3, 1", r.passed, len(r.failed), len(r.skips))
	}
	out.WriteString(r.end())
	for _, want := range []string{"p TestD: a skip must name", "left behind: mount", "FAIL  q", "no test has run", "FAIL  r", "SKIP  p TestB: kernel feature missing: idmapped mounts"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, &out)
		}
	}
}

func TestOnlyTypedReasonsExcuseASkip(t *testing.T) {
	const feature = "kernel feature missing: io_uring"
	for output, want := range map[string]string{
		"    a_test.go:1: " + feature + "\n--- SKIP: TestA (0.00s)\n":                                      feature,
		"    a_test.go:1: mount: layer 3: " + feature + "\n":                                               feature,
		"=== RUN   TestA\n    a_test.go:1: cgroup controller memory is missing\n--- SKIP: TestA (0.00s)\n": "cgroup controller memory is missing",
		"    a_test.go:1: tool missing: static busybox (apt-get install busybox-static)\n":                 "tool missing: static busybox (apt-get install busybox-static)",
		"    a_test.go:1: a word before\n    a_test.go:2: " + feature + "\n":                               feature,
		"        a_test.go:1: " + feature + "\n    --- SKIP: TestA/sub (0.00s)\n":                          feature,

		"":                             "",
		"--- SKIP: TestA (0.00s)\n":    "",
		"    a_test.go:1: not today\n": "",
		"    a_test.go:1: " + feature + "\n    a_test.go:2: not today\n--- SKIP: TestA (0.00s)\n": "",
		"    a_test.go:1: no " + feature + "\n        and other words\n":                          "",
		"    a_test.go:1: kernel feature missing: \n":                                             "",
		"    a_test.go:1: tool missing: x\n":                                                      "",
		"    a_test.go:1: cgroup controller memory is missing today\n":                            "",
		feature + "\n": "",
	} {
		if got := skipReason(output); got != want {
			t.Errorf("%q: reason %q, want %q", output, got, want)
		}
	}
}

// Real tests of a real module, with each kind of end.
func TestRunFailsForASkipThatIsNotTyped(t *testing.T) {
	for body, want := range map[string]string{
		`t.Log("fine")`: "1 0 0\n",
		`t.Skip("kernel feature missing: time travel")`:         "0 0 1\nSKIP  example.test TestIt: kernel feature missing: time travel\n",
		`t.Skip("no network here")`:                             "0 1 0\nFAIL  example.test TestIt\n",
		`t.SkipNow()`:                                           "0 1 0\nFAIL  example.test TestIt\n",
		`t.Run("sub", func(t *testing.T) { t.Skip("later") })`:  "1 1 0\nFAIL  example.test TestIt/sub\n",
		`t.Log("kernel feature missing: x"); t.SkipNow()`:       "0 0 1\nSKIP  example.test TestIt: kernel feature missing: x\n",
		`t.Log("kernel feature missing: x"); t.Skip("because")`: "0 1 0\nFAIL  example.test TestIt\n",
		`t.Fatal("kernel feature missing: x")`:                  "0 1 0\nFAIL  example.test TestIt\n      a_test.go:6: kernel feature missing: x\n",
		"}\n\nfunc TestMain(*testing.M) {":                      "0 1 0\nFAIL  example.test\n",
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"go.mod":    "module example.test\n\ngo 1.26\n",
			"a_test.go": fmt.Sprintf("package a\n\nimport \"testing\"\n\nfunc TestIt(t *testing.T) {\n\t%s\n}\n", body),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		totals := filepath.Join(dir, "totals")
		err := run(dir, totals, false, []string{"-count=1", "./..."})
		got, readErr := os.ReadFile(totals)
		if readErr != nil {
			t.Fatalf("%s: %v, %v", body, err, readErr)
		}
		if string(got) != want || (err != nil) != strings.Contains(want, "FAIL") {
			t.Errorf("%s: %v and totals %q, want %q", body, err, got, want)
		}
	}
}
