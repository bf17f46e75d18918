package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// spec is the outcome of one spec.
type spec struct {
	name   string
	state  types.SpecState
	reason string // of a failure or a skip
	took   time.Duration
}

// result is the outcome of the suite.
type result struct {
	specs   []spec
	excuses []excuse // why some may be skipped
	trouble []string // what the suite has to say beside its specs
}

// runSuite runs the test binary and reads its report. Specs that fail are not
// an error here.
func (o *options) runSuite(endpoint, digest string) (*result, error) {
	excuses, err := readSkips(filepath.Join(o.lists, "skips.txt"))
	if err != nil {
		return nil, err
	}
	report := filepath.Join(o.output, "report.json")
	logPath := filepath.Join(o.output, "suite.log")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	arguments := []string{
		"-runtime-endpoint=" + endpoint, "-ginkgo.json-report=" + report, "-ginkgo.no-color", "-ginkgo.v",
		"-ginkgo.randomize-all", "-ginkgo.seed=" + strconv.FormatInt(o.seed, 10),
		// A hanging spec is ended by the first; the second shows where it hangs.
		"-ginkgo.timeout=" + o.limit.String(), "-ginkgo.poll-progress-after=90s",
		"-runtime-service-timeout=70s", "-image-service-timeout=70s",
	}
	if o.focus != "" {
		arguments = append(arguments, "-ginkgo.focus="+o.focus)
	}
	if o.websocket {
		arguments = append(arguments, "-websocket-exec", "-websocket-attach", "-websocket-portforward")
	}
	for _, e := range excuses {
		if e.missing {
			arguments = append(arguments, "-ginkgo.skip="+e.pattern.String())
		}
	}
	say("running the suite in random order, seed %d (log: %s)", o.seed, logPath)
	suite := exec.Command(o.suite, arguments...)
	suite.Dir = o.output
	suite.Env = append(os.Environ(), "CRITEST_IMAGE_DIGEST="+digest)
	suite.Stdout, suite.Stderr = log, log
	runErr := suite.Run()
	r, err := readReport(report)
	if err != nil {
		return nil, errors.Join(runErr, fmt.Errorf("the suite left no report, see %s: %w", logPath, err))
	}
	if runErr != nil {
		r.trouble = append(r.trouble, fmt.Sprintf("the suite ended with %v", runErr))
	}
	r.excuses = excuses
	return r, nil
}

func readReport(path string) (*result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var reports []types.Report
	if err := json.Unmarshal(text, &reports); err != nil {
		return nil, err
	}
	r := new(result)
	for _, report := range reports {
		r.trouble = append(r.trouble, report.SpecialSuiteFailureReasons...)
		for _, s := range report.SpecReports {
			name := specName(s)
			switch {
			case s.LeafNodeType != types.NodeTypeIt:
				if s.State.Is(types.SpecStateFailureStates) {
					r.specs = append(r.specs, spec{name: s.LeafNodeType.String(), state: s.State, reason: oneLine(s.Failure.Message)})
				}
			case !strings.Contains(name, "benchmark"):
				r.specs = append(r.specs, spec{name: name, state: s.State, reason: failureText(s), took: s.RunTime})
			}
		}
	}
	slices.SortFunc(r.specs, func(a, b spec) int { return strings.Compare(a.name, b.name) })
	return r, nil
}

// specName is the full text of a spec without the prefix that all share.
func specName(s types.SpecReport) string {
	return strings.TrimPrefix(s.FullText(), "[k8s.io] ")
}

func failureText(s types.SpecReport) string {
	if s.Failure.Message == "" {
		return ""
	}
	where := s.Failure.Location
	return fmt.Sprintf("%s (%s:%d)", oneLine(s.Failure.Message), filepath.Base(where.FileName), where.LineNumber)
}

var space = regexp.MustCompile(`\s+`)

func oneLine(text string) string {
	text = space.ReplaceAllString(text, " ")
	if len(text) > 600 {
		text = text[:400] + " ... " + text[len(text)-200:]
	}
	return text
}
