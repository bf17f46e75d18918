package cgroup

import (
	"reflect"
	"testing"

	"cri-mini/runtime/spec"
)

func TestParseIO(t *testing.T) {
	for text, want := range map[string][]spec.DeviceIO{
		"": {},
		"8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n": {{Major: 8, ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4}},
		"259:1\n":              {{Major: 259, Minor: 1}}, // no traffic yet
		"254:0 \n8:0 rios=9\n": {{Major: 254}, {Major: 8, Reads: 9}},
		"8:0 rbytes=1 cost.usage=7 wbytes=18446744073709551616 wios=1\n": {{Major: 8, ReadBytes: 1, Writes: 1}},
		"(unknown) rbytes=1\nx:y rbytes=1\n:0 rios=1\n":                  {},
	} {
		if got := parseIO(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestParsePressure(t *testing.T) {
	for text, want := range map[string]spec.Pressure{
		"some avg10=98.76 avg60=5.00 avg300=0.10 total=3\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=2\n": {
			Some: spec.PressureTime{Avg10: 98.76, Avg60: 5, Avg300: 0.1, Nanos: 3000}, Full: spec.PressureTime{Avg10: 1, Nanos: 2000}},
		"some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n": {Some: spec.PressureTime{Nanos: 7000}}, // cpu before Linux 5.13
		"some avg10=NaN avg60=-1 avg300=1e300 total=x\n":   {},
		"other avg10=1.00\n":                               {},
	} {
		if got := parsePressure(text); *got != want {
			t.Errorf("%q: %+v, want %+v", text, *got, want)
		}
	}
}

func TestParseMax(t *testing.T) {
	for text, want := range map[string][2]uint64{"max 100000\n": {0, 100000}, "20000 100000\n": {20000, 100000}} {
		quota, period, err := parseMax(text)
		if got := [2]uint64{quota, period}; err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "max", "20000 -1", "many 100000"} {
		if quota, period, err := parseMax(text); err == nil {
			t.Errorf("%q: %d in %d without an error", text, quota, period)
		}
	}
}

func TestSharesComeBackFromTheirWeight(t *testing.T) {
	for _, asked := range []uint64{2, 3, 102, 1000, 1024, 2048, 262144} {
		weight, _, err := parseNumber("cpu.weight", mustWeight(t, asked))
		if err != nil {
			t.Fatal(err)
		}
		if got := sharesOf(weight, asked); got != asked {
			t.Errorf("%d shares have weight %d, which became %d shares", asked, weight, got)
		}
		// Nobody remembers what was asked: shares of the same weight.
		if again := mustWeight(t, sharesOf(weight, 0)); again != mustWeight(t, asked) {
			t.Errorf("weight %d became %d shares, whose weight is %s", weight, sharesOf(weight, 0), again)
		}
	}
	if got := sharesOf(100, 2); got < 900 || got > 1024 {
		t.Errorf("the default weight is %d shares", got)
	}
}

func mustWeight(t *testing.T, shares uint64) string {
	t.Helper()
	all, err := Resources{CPUShares: int64(shares)}.settings()
	if err != nil {
		t.Fatal(err)
	}
	return all[0].value
}

func TestPageSizesAreNamedAsTheKernelDoes(t *testing.T) {
	for kilobytes, want := range map[uint64]string{64: "64KB", 2048: "2MB", 32768: "32MB", 1048576: "1GB", 16777216: "16GB"} {
		if got := pageSize(kilobytes); got != want {
			t.Errorf("%d kB: %s, want %s", kilobytes, got, want)
		}
	}
}

func FuzzFilesOfStatistics(f *testing.F) {
	for _, text := range usedFiles {
		f.Add(text)
	}
	for _, text := range []string{
		"", "\n", " ", "=", ":", "some", "full avg10=", "usage_usec", "usage_usec -1", "8:0", "8:0 rbytes", "max max", "max",
		"memory 18446744073709551615", "18446744073709551616", "some avg10=Inf total=18446744073709551615",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c spec.CPU
		parseCPU(text, &c)
		m := spec.Memory{Usage: 1000}
		parseMemory(text, &m)
		parseMemoryEvents(text, &m)
		if m.WorkingSet > m.Usage {
			t.Errorf("working set %d of %d", m.WorkingSet, m.Usage)
		}
		for _, d := range parseIO(text) {
			if d.Name != "" {
				t.Errorf("device %+v has a name from nowhere", d)
			}
		}
		p := parsePressure(text)
		for _, v := range []float64{p.Some.Avg10, p.Some.Avg60, p.Some.Avg300, p.Full.Avg10, p.Full.Avg60, p.Full.Avg300} {
			if !(v >= 0 && v <= 100) {
				t.Errorf("%v percent", v)
			}
		}
		if n, limited, err := parseNumber("file", text); err != nil && (n != 0 || limited) {
			t.Errorf("%d, %t beside an error", n, limited)
		}
		_, _, _ = parseMax(text)
	})
}
