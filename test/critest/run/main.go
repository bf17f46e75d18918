// Command run puts the upstream suite to a real daemon.
//
// It works in three processes. The first builds what is needed and makes new
// namespaces; the second is PID 1 in them, mounts their file systems and reaps;
// the third starts registry, daemon and suite and gives the verdict. So the
// machine keeps its mounts, addresses and ports, whatever the daemon does, and
// what the daemon leaves behind is easy to see.
package main

import (
	"flag"
	"fmt"
	"os"
)

// options are the same in all three processes.
type options struct {
	daemon string // the program under test
	suite  string // the suite's test binary
	output string // where logs and the report go
	lists  string // the directory of passing.txt and skips.txt
	focus  string
	totals string
	update bool
}

func main() {
	var o options
	flag.StringVar(&o.daemon, "daemon", "", "`program` to test (default: bin/cri-mini of the repository)")
	flag.StringVar(&o.output, "output", "", "`directory` for logs and the report (default: .cache/critest)")
	flag.StringVar(&o.suite, "suite", "", "test `binary` of the suite (default: .cache/bin/critest, built first)")
	flag.StringVar(&o.lists, "lists", "", "`directory` of passing.txt and skips.txt (default: test/critest)")
	flag.StringVar(&o.focus, "focus", "", "run only the specs whose name matches this `expression`")
	flag.StringVar(&o.totals, "totals", "", "`file` to write \"passed failed skipped\" to")
	flag.BoolVar(&o.update, "update", false, "rewrite passing.txt from this run")
	flag.Parse()

	stages := map[string]func(options) (int, error){"": outside, "init": initial, "inside": inside}
	status, err := stages[os.Getenv(stageVariable)](o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "critest: %v\n", err)
		status = 1
	}
	os.Exit(status)
}

// say tells what is being done.
func say(format string, arguments ...any) {
	fmt.Printf("critest: "+format+"\n", arguments...)
}
