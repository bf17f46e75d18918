// Command gotest runs the tests of a module, prints what a reader needs of
// their output, and refuses skips that do not name what is missing.
//
//	gotest [-C DIRECTORY] [-totals FILE] [-each] [-- go test arguments]
//
// A test may skip only by the typed errors for what a machine can lack, which
// read:
//
//	kernel feature missing: NAME
//	cgroup controller NAME is missing
//	tool missing: NAME (apt-get install PACKAGE)
//
// The error may have the names of what was tried before it, and nothing behind.
// A package in which no test has run is a failure too. FILE gets a line "passed
// failed skipped", and then one for each test that failed or was skipped. With
// -each every test that passes has a line.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// entry begins what a test has logged, and allowedSkip is what a skip may say.
var (
	entry       = regexp.MustCompile(`(?m)^ *\S+\.go:\d+: `)
	allowedSkip = regexp.MustCompile(`^(?:[^\n]*: )?(kernel feature missing: \S[^\n]*|cgroup controller \S+ is missing|tool missing: [^\n]+ \(apt-get install \S+\))$`)
)

// skipReason finds the typed error in the output of a skipped test: its last
// entry, for a test does not go on after it.
func skipReason(output string) string {
	output, _, _ = strings.Cut(output, "--- SKIP: ")
	entries := entry.FindAllStringIndex(output, -1)
	if len(entries) == 0 {
		return ""
	}
	last := output[entries[len(entries)-1][1]:]
	found := allowedSkip.FindStringSubmatch(strings.TrimRight(last, "\n "))
	if found == nil {
		return ""
	}
	return found[1]
}

func main() {
	totals := flag.String("totals", "", "`file` to write the three totals to")
	each := flag.Bool("each", false, "print a line for each test that passes, too")
	module := flag.String("C", ".", "`directory` of the module")
	flag.Parse()
	if err := run(*module, *totals, *each, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "gotest: %v\n", err)
		os.Exit(1)
	}
}

func run(module, totals string, each bool, arguments []string) error {
	command := exec.Command("go", append([]string{"test", "-json"}, arguments...)...)
	command.Dir = module
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	r := newReport(os.Stdout)
	r.each = each
	r.some = slices.ContainsFunc(arguments, func(a string) bool { return strings.HasPrefix(a, "-run") })
	if err := r.read(output); err != nil {
		return errors.Join(err, command.Process.Kill())
	}
	testErr := command.Wait()
	fmt.Print(r.end())
	if totals != "" {
		text := fmt.Sprintf("%d %d %d\n%s", r.passed, len(r.failed), len(r.skips), r.end())
		if err := os.WriteFile(totals, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if len(r.failed) > 0 || testErr != nil {
		return fmt.Errorf("%d failed (go test: %v)", len(r.failed), testErr)
	}
	return nil
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// report collects the events of all packages.
type report struct {
	out    io.Writer
	some   bool // not all tests are run
	each   bool // tell also who passes
	passed int
	failed []string            // packages with their tests
	skips  []string            // the same with reasons
	output map[string][]string // lines of a package's or test's output
	words  map[string][]string // what failed tests said first
	broken map[string]bool     // packages with a failed test
	tested map[string]bool     // packages with a test that has run
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string][]string{}, words: map[string][]string{}, broken: map[string]bool{}, tested: map[string]bool{}}
}

func (r *report) read(stream io.Reader) error {
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("go test said %q: %w", line, err)
		}
		r.handle(e)
	}
}

func (r *report) handle(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case "build-output":
		fmt.Fprint(r.out, e.Output)
		return
	case "pass", "skip", "fail":
	default:
		return
	}
	if e.Test == "" {
		r.finishPackage(e, r.output[key])
	} else {
		r.finishTest(e, strings.Join(r.output[key], ""))
	}
	delete(r.output, key)
}

func (r *report) finishTest(e event, output string) {
	r.tested[e.Package] = true
	switch e.Action {
	case "pass":
		r.passed++
		if r.each {
			fmt.Fprintf(r.out, "ok    %s %.1fs\n", e.Test, e.Elapsed)
		}
	case "fail":
		r.fail(e)
		r.words[e.Package+" "+e.Test] = firstWords(output)
		fmt.Fprint(r.out, output)
	case "skip":
		reason := skipReason(output)
		if reason == "" {
			r.fail(e)
			fmt.Fprintf(r.out, "FAIL  %s %s: a skip must name a missing kernel feature or tool, not:\n%s", e.Package, e.Test, output)
			return
		}
		r.skips = append(r.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason))
	}
}

func (r *report) fail(e event) {
	r.failed = append(r.failed, strings.TrimSpace(e.Package+" "+e.Test))
	r.broken[e.Package] = true
}

// finishPackage prints one line. A package can fail without a failed test: it
// does not build, or what watches over its tests found something left behind,
// or left them all out.
func (r *report) finishPackage(e event, output []string) {
	if e.Action == "pass" && !r.tested[e.Package] && !r.some {
		e.Action = "fail"
		output = append(output, "no test has run\n")
	}
	word := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "-"}[e.Action]
	fmt.Fprintf(r.out, "%-5s %s %.1fs\n", word, e.Package, e.Elapsed)
	if e.Action == "fail" && !r.broken[e.Package] {
		r.fail(e)
		fmt.Fprint(r.out, strings.Join(output, ""))
	}
}

// firstWords gives the beginnings of the first lines that a test logged: whoever
// sees only the end of a long output is to know what went wrong.
func firstWords(output string) []string {
	const lines, length = 6, 400
	var words []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if len(words) == 0 && !entry.MatchString(line) || strings.HasPrefix(line, "--- ") {
			continue
		}
		if len(words) == lines {
			break
		}
		words = append(words, line[:min(len(line), length)])
	}
	return words
}

// end repeats what may have scrolled away.
func (r *report) end() string {
	var text strings.Builder
	slices.Sort(r.skips)
	for _, skip := range r.skips {
		fmt.Fprintf(&text, "SKIP  %s\n", skip)
	}
	for _, name := range r.failed {
		fmt.Fprintf(&text, "FAIL  %s\n", name)
		for _, line := range r.words[name] {
			fmt.Fprintf(&text, "      %s\n", line)
		}
	}
	return text.String()
}
