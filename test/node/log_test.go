package node

import (
	"fmt"
	"io"
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
	return parseLog(t, path, text)
}

func parseLog(t *testing.T, path, text string) []record {
	t.Helper()
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

// text is what actor writes as its n-th line.
func text(n int) string {
	return fmt.Sprintf("line %09d of the container's output, long enough to be torn", n)
}

// numbered gives the numbers of the lines that actor wrote on one stream, and
// the records that are not such a line.
func numbered(records []record, stream string) (numbers []int, torn []record) {
	for _, r := range records {
		if r.stream != stream {
			continue
		}
		var n int
		_, err := fmt.Sscanf(r.text, "line %d", &n)
		if err != nil || r.tag != "F" || strings.TrimSuffix(r.text, "\r") != text(n) {
			torn = append(torn, r)
			continue
		}
		numbers = append(numbers, n)
	}
	return numbers, torn
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
func complete(t *testing.T, path string, tty bool, streams ...string) int {
	t.Helper()
	records, n := readLog(t, path), 0
	for _, stream := range streams {
		numbers, torn := numbered(records, stream)
		for _, r := range torn {
			if tty && r.tag == "P" && r == records[len(records)-1] {
				continue // a program can be killed in the middle of a write to a terminal
			}
			t.Errorf("torn line on %s: %q %q", stream, r.tag, r.text)
		}
		if _, report := gaps(numbers); report != "" {
			t.Errorf("%s of %s: %s", stream, path, report)
		}
		n = len(numbers)
	}
	return n
}

// lastLine is the number in the last complete line of a log so far; 0 when
// there is none.
func lastLine(path string) int {
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0
	}
	tail := make([]byte, 1000)
	n, _ := file.ReadAt(tail, max(0, end-int64(len(tail))))
	lines := strings.Split(string(tail[:n]), "\n")
	for _, line := range slices.Backward(lines[:len(lines)-1]) {
		if _, rest, found := strings.Cut(line, " F line "); found && len(rest) > 9 {
			if n, err := strconv.Atoi(rest[:9]); err == nil {
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
