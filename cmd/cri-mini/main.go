// Command cri-mini is a Kubernetes node runtime in one file: the daemon, the
// monitor that it starts of itself, and a command line for people.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
	_ "cri-mini/runtime/boot" // may take over the process before main
)

// version is set by the linker.
var version = "0.0.0-unknown"

// commandLine is the grammar. What is here may stand before or after any verb.
type commandLine struct {
	ConfigFile      string `name:"config" default:"${configFile}" placeholder:"FILE" help:"Configuration; optional in its default place."`
	config.Endpoint `embed:""`

	Serve   serveCmd   `cmd:"" help:"Run the daemon in the foreground."`
	Stop    stopCmd    `cmd:"" help:"End the daemon; pods go on running unless told otherwise."`
	Run     runCmd     `cmd:"" help:"Run a program in a pod of its own. Needs neither kubelet nor daemon."`
	Ps      psCmd      `cmd:"" help:"List containers."`
	Exec    execCmd    `cmd:"" help:"Run a program in a running container."`
	Logs    logsCmd    `cmd:"" help:"Show what a container has written."`
	Pull    pullCmd    `cmd:"" help:"Fetch an image from its registry."`
	Import  importCmd  `cmd:"" help:"Take an image from a file or directory."`
	Images  imagesCmd  `cmd:"" help:"List images."`
	Image   imageCmd   `cmd:"" help:"Look after images on the disk."`
	Rmi     rmiCmd     `cmd:"" help:"Remove images with all their names."`
	Inspect inspectCmd `cmd:"" help:"Show a container or pod as the host's kernel sees it."`

	Doctor  doctorCmd  `cmd:"" help:"Check this node, and compare what is there with the records."`
	Gc      gcCmd      `cmd:"" help:"Remove what belongs to no record."`
	Why     whyCmd     `cmd:"" help:"Say why a container or pod is as it is, and what was done to it."`
	Version versionCmd `cmd:"" help:"Show the version, and what this machine offers."`
	Config  configCmd  `cmd:"" name:"config" help:"Show the configuration in effect."`
}

// exitCode is an error that only says how to exit.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// The first thread is main's alone. Goroutines that enter a pod's namespaces
// let their thread end with them, and the first cannot end: it would keep the
// namespaces, and /proc would show them as ours.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute is the program without its process.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var grammar commandLine
	file := &fromFile{}
	parser, err := kong.New(&grammar,
		kong.Name("cri-mini"),
		kong.Description("A Kubernetes node runtime in one file."),
		kong.Vars{"configFile": config.DefaultFile},
		kong.Writers(stdout, stderr),
		kong.Resolvers(file),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.Bind(&grammar.Endpoint),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "cri-mini:", err)
		return 1
	}
	command, err := parser.Parse(helpWanted(args))
	if file.err != nil {
		err = file.err // kong would name a flag that has nothing to do with it
	}
	if err == nil {
		err = command.Run()
	}
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(stderr, "cri-mini: %s\n", oneLine(err))
	if hint := hintFor(err, &grammar); hint != "" {
		fmt.Fprintf(stderr, "cri-mini: %s\n", hint)
	}
	return failure(err, command)
}

// helpWanted lets "help" and "help VERB" ask for what --help gives.
func helpWanted(args []string) []string {
	if len(args) == 0 || args[0] != "help" {
		return args
	}
	return append(slices.Clone(args[1:]), "--help")
}

// failure is the exit code of an error. For run it must not look like one of
// the program's, except where a shell would give the same.
func failure(err error, command *kong.Context) int {
	var start *admin.StartError
	switch {
	case errors.As(err, &start) && (start.Code == 126 || start.Code == 127):
		return start.Code
	case command != nil && command.Selected() != nil && command.Selected().Name == "run":
		return 125
	}
	return 1
}
