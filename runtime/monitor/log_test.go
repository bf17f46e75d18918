package monitor

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

// The first thread, which stands for the process in /proc, must not become a
// spawner's.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { leakcheck.Main(m) }

func openTestLog(t *testing.T, path string, flags int) *log {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(fd)
	t.Cleanup(l.close)
	return l
}

// parse splits a log as a kubelet does.
func parse(t *testing.T, text []byte) (stream []string, tags string, content []string) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 {
			t.Fatalf("no record: %q", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, fields[0]); err != nil {
			t.Fatal(err)
		}
		stream, tags, content = append(stream, fields[1]), tags+fields[2], append(content, fields[3])
	}
	return stream, tags, content
}

func TestLinesBecomeRecords(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		chunks []string
		tags   string
		want   []string
	}{
		"whole lines":         {[]string{"a\nb\n"}, "FF", []string{"a", "b"}},
		"line in two reads":   {[]string{"a", "b\n"}, "F", []string{"ab"}},
		"empty line":          {[]string{"\n"}, "F", []string{""}},
		"end without newline": {[]string{"a\nb"}, "FP", []string{"a", "b"}},
		"line of the limit":   {[]string{long + "\n"}, "F", []string{long}},
		"line over the limit": {[]string{long + "yz\n"}, "PF", []string{long, "yz"}},
		"endless line":        {[]string{long, long, "q"}, "PPP", []string{long, long, "q"}},
		"binary":              {[]string{"\x00\xff \r\n"}, "F", []string{"\x00\xff \r"}},
	} {
		path := filepath.Join(t.TempDir(), "log")
		l := openTestLog(t, path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND)
		var rest []byte
		for _, chunk := range c.chunks {
			rest = append([]byte(nil), l.records("stdout", append(rest, chunk...), false)...)
			l.flush()
		}
		l.records("stdout", rest, true)
		l.flush()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		streams, tags, content := parse(t, text)
		if tags != c.tags || strings.Join(content, "|") != strings.Join(c.want, "|") || streams[0] != "stdout" {
			t.Errorf("%s: tags %s, want %s", name, tags, c.tags)
		}
	}
}

func TestFullDiskIsMarkedAndDoesNotStopTheLog(t *testing.T) {
	l := openTestLog(t, "/dev/full", unix.O_WRONLY)
	for range 3 {
		l.records("stdout", []byte("lost\n"), false)
		l.flush()
	}
	path := filepath.Join(t.TempDir(), "log")
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	l.reopen(fd)
	l.records("stdout", []byte("back\n"), false)
	l.flush()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, _, content := parse(t, text)
	if len(content) != 2 || content[0] != "cri-mini: 3 log lines lost: no space left on device" || content[1] != "back" {
		t.Errorf("log holds %q", content)
	}
}

// A monitor can be killed in the middle of a write.
func TestTornRecordIsCutOffBeforeTheNext(t *testing.T) {
	const whole = "2026-11-24T08:30:00Z stdout F whole\n"
	long := strings.Repeat("2026-11-24T08:30:00Z stdout F "+strings.Repeat("x", maxLine)+"\n", 3)
	for name, c := range map[string]struct{ before, want string }{
		"nothing":              {"", ""},
		"whole records":        {whole + whole, whole + whole},
		"part of a record":     {whole + "2026-11-24T08:3", whole},
		"part of the first":    {"2026-11-24T08:3", ""},
		"part of a long one":   {long + long[:maxLine], long},
		"no log of ours":       {strings.Repeat("z", 3*maxLine), strings.Repeat("z", 3*maxLine)},
		"all but its last one": {whole + strings.TrimSuffix(whole, "\n"), whole},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			openTestLog(t, path, unix.O_RDWR|unix.O_APPEND).mend()
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("%d bytes became %d (%.60q), want %d", len(c.before), len(got), got, len(c.want))
			}
		})
	}
	newLog(-1).mend() // a container without log
}
