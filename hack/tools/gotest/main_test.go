package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestCountsTestsAndRefusesSkipsWithoutAReason(t *testing.T) {
	const events = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: kernel feature missing: idmapped mounts\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: tool missing: mkfs.erofs (apt-get install erofs-utils)\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:3: not today\n"}
{"Action":"skip","Package":"p","Test":"TestD"}
{"Action":"pass","Package":"p"}
{"Action":"output","Package":"q","Output":"left behind: mount\n"}
{"Action":"fail","Package":"q"}
{"Action":"skip","Package":"without/tests"}
`
	var out bytes.Buffer
	r := newReport(&out)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if r.passed != 1 || len(r.failed) != 2 || len(r.skips) != 2 {
		t.Errorf("got %d passed, %d failed, %d skipped, want 1, 2, 2", r.passed, len(r.failed), len(r.skips))
	}
	for _, want := range []string{"p TestD: a skip must name", "left behind: mount", "FAIL  q"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, &out)
		}
	}
}
