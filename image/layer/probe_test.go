package layer

import "testing"

func TestProbe(t *testing.T) {
	if err := Probe(t.TempDir()); err != nil {
		t.Fatal(err)
	}
}
