package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

// lines writes numbered lines, each with one write as a program does that
// flushes, in bursts with a pause in between.
func lines(args []string) error {
	set := flag.NewFlagSet("lines", flag.ExitOnError)
	count := set.Int("n", 0, "how many; 0: until killed")
	burst := set.Int("burst", 20, "lines between two pauses")
	pause := set.Duration("pause", time.Millisecond, "pause after a burst")
	both := set.Bool("stderr", false, "the same on stderr, in turns")
	code := set.Int("exit", 0, "exit code")
	if err := set.Parse(args); err != nil {
		return err
	}
	for i := 1; *count == 0 || i <= *count; i++ {
		line := fmt.Appendf(nil, "line %09d of the container's output, long enough to be torn\n", i)
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
		if *both {
			if _, err := os.Stderr.Write(line); err != nil {
				return err
			}
		}
		if i%*burst == 0 {
			time.Sleep(*pause)
		}
	}
	os.Exit(*code)
	return nil
}

func flood([]string) error {
	block := make([]byte, 64<<10)
	for {
		if _, err := os.Stdout.Write(block); err != nil {
			return err
		}
	}
}
