package node

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// record is one line of a container's log.
type record struct{ stream, tag, text string }

// readLog parses a log. A line that is none fails the test.
func readLog(t *testing.T, path string) []record {
	t.Helper()
	text := readFile(t, path)
	if text != "" && !strings.HasSuffix(text, "\n") {
		t.Errorf("%s ends in the middle of a line: %q", path, text[max(0, len(text)-100):])
	}
	var records []record
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(parts) < 4 || (parts[1] != "stdout" && parts[1] != "stderr") || (parts[2] != "F" && parts[2] != "P") {
			t.Errorf("%s: %q is no line of a log", path, line)
			continue
		}
		if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		records = append(records, record{parts[1], parts[2], parts[3]})
	}
	return records
}

// numbered checks what actor lines wrote on one stream and gives the numbers.
// A line in part, or joined with another, fails the test.
func numbered(t *testing.T, records []record, stream string) []int {
	t.Helper()
	var numbers []int
	for _, r := range records {
		if r.stream != stream {
			continue
		}
		var n int
		want := ""
		if _, err := fmt.Sscanf(r.text, "line %d", &n); err == nil {
			want = fmt.Sprintf("line %09d of the container's output, long enough to be torn", n)
		}
		if strings.TrimSuffix(r.text, "\r") != want || r.tag != "F" {
			t.Errorf("torn line on %s: %q %q", stream, r.tag, r.text)
			continue
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// gaps says what is missing, doubled or out of order in 1, 2, 3...
func gaps(numbers []int) (missing int, report string) {
	var all []string
	for next, i := 1, 0; i < len(numbers); i++ {
		switch n := numbers[i]; {
		case n > next:
			missing += n - next
			all = append(all, fmt.Sprintf("%d to %d missing", next, n-1))
			next = n + 1
		case n < next:
			all = append(all, fmt.Sprintf("%d again or late", n))
		default:
			next++
		}
	}
	return missing, strings.Join(all[:min(len(all), 20)], ", ")
}

// complete fails the test unless all lines from the first on are there, once
// and in order; it gives how many.
func complete(t *testing.T, path string, streams ...string) int {
	t.Helper()
	records, n := readLog(t, path), 0
	for _, stream := range streams {
		numbers := numbered(t, records, stream)
		if _, report := gaps(numbers); report != "" {
			t.Errorf("%s of %s: %s", stream, path, report)
		}
		n = len(numbers)
	}
	return n
}

// lastLine is the number in the last complete line of a log so far.
func lastLine(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	lines := strings.Split(string(text[max(0, len(text)-1000):]), "\n")
	for _, line := range slices.Backward(lines[:len(lines)-1]) {
		if _, rest, found := strings.Cut(line, " F line "); found {
			n, err := strconv.Atoi(strings.TrimLeft(rest[:9], "0"))
			if err == nil {
				return n
			}
		}
	}
	return 0
}

func portOf(address string) int {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	return n
}
