package selinux

import "testing"

func TestLabelsAreReadAndChanged(t *testing.T) {
	const text = "system_u:system_r:container_t:s0-s0:c0.c1023"
	l, err := Parse(text + "\x00")
	if err != nil || l.String() != text || l.Level != "s0-s0:c0.c1023" {
		t.Fatalf("Parse gives %+v, %v", l, err)
	}
	if got := l.With(Label{Type: "spc_t", Level: "s0:c1,c2"}).String(); got != "system_u:system_r:spc_t:s0:c1,c2" {
		t.Errorf("with another type and level: %s", got)
	}
	if got := l.With(Label{}); got != l {
		t.Errorf("with nothing else: %s", got)
	}
	for _, bad := range []string{"", "kernel", "a:b:c", "a:b::s0", "a:b:c d:s0", "a:b:c:s0\nx"} {
		if l, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) gives %+v", bad, l)
		}
	}
}

func TestLevelsOfPodsDiffer(t *testing.T) {
	var l Levels
	seen := map[string]bool{}
	for range 2000 {
		level, err := l.Take("s0-s0:c0.c1023")
		if err != nil || seen[level] {
			t.Fatalf("level %q, %v: taken before: %t", level, err, seen[level])
		}
		seen[level] = true
		if len(level) < 8 || level[:4] != "s0:c" {
			t.Fatalf("level %q, want s0 with two categories", level)
		}
	}
	// Two who were given the same: it is free when both are gone.
	l.Keep("s0:c1,c2")
	l.Keep("s0:c1,c2")
	l.Release("s0:c1,c2")
	if l.used["s0:c1,c2"] == 0 {
		t.Error("free while one has it")
	}
	for level := range l.used {
		l.used[level] = 1
		l.Release(level)
	}
	if len(l.used) != 0 {
		t.Errorf("%d levels are left", len(l.used))
	}
}
