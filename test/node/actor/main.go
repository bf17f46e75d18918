// Command actor is what runs in the containers of these tests where a shell
// would be too slow or too well-behaved: it talks fast, takes all it can
// get, and attacks the node that runs it.
//
//	actor lines [-n COUNT] [-pause TIME] [-stderr] [-exit CODE]   numbered lines
//	            [-listen PORT]                                    and answer HTTP
//	actor flood                                                   zeros without end
//	actor fds                                                     where all descriptors within reach lead
//	actor overwrite PATTERN TIME                                  write to programs of other processes
//	actor swap A B TIME                                           exchange two names without pause
//	actor sockets                                                 connect to every abstract socket
//	actor threads COUNT                                           have many threads, and sleep
//	actor burn                                                    use a processor
//	actor eat MIB TIME                                            take memory and keep it
//	actor bomb COUNT                                              start processes
//	actor huge COUNT                                              take huge pages
//	actor write FILE MIB                                          write to the disk and not only to memory
//	actor device                                                  open a device that was not given
package main

import (
	"fmt"
	"os"
)

func main() {
	verbs := map[string]func([]string) error{
		"lines": lines, "flood": flood, "fds": descriptors, "overwrite": overwrite, "swap": swap, "sockets": sockets, "threads": threads,
		"burn": burn, "eat": eat, "bomb": bomb, "huge": huge, "device": device, "write": write,
	}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "actor: unknown verb in %q\n", os.Args)
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "actor:", err)
		os.Exit(1)
	}
}
