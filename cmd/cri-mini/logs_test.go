package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const stamp = "2026-01-02T03:04:05.6Z "

func writeLog(t *testing.T, records ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(stamp+strings.Join(records, "\n"+stamp)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLogsShowLinesAsTheyWereWritten(t *testing.T) {
	path := writeLog(t, "stdout F one", "stderr F wrong", "stdout P tw", "stdout F o", "stdout F ", "stdout F:x  with spaces ", "stdout P no end")
	for _, c := range []struct {
		tail       int
		timestamps bool
		out, err   string
	}{
		{-1, false, "one\ntwo\n\n with spaces \nno end", "wrong\n"},
		{2, false, " with spaces \nno end", ""},
		{4, false, "two\n\n with spaces \nno end", ""},
		{0, false, "", ""},
		{99, false, "one\ntwo\n\n with spaces \nno end", "wrong\n"},
		{4, true, stamp + "two\n" + stamp + "\n" + stamp + " with spaces \n" + stamp + "no end", ""},
	} {
		var out, errOut bytes.Buffer
		show := &logPrinter{out: &out, errOut: &errOut, timestamps: c.timestamps}
		if err := followLog(t.Context(), path, c.tail, show, nil); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.out || errOut.String() != c.err {
			t.Errorf("tail %d: got %q and %q, want %q and %q", c.tail, out.String(), errOut.String(), c.out, c.err)
		}
	}
}

func TestFollowedLogLosesNothingAcrossRotations(t *testing.T) {
	path := writeLog(t, "stdout F 0")
	const lines = 400
	done := make(chan bool, 1)
	go func() {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		for i := 1; i < lines && err == nil; i++ {
			if i%100 == 0 { // as the kubelet does: move, then have it reopened
				if err = os.Rename(path, fmt.Sprint(path, ".", i)); err != nil {
					break
				}
				fmt.Fprintf(file, "%sstdout F %d\n", stamp, i) // before the writer has reopened
				file.Close()
				file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
				continue
			}
			fmt.Fprintf(file, "%sstdout F %d\n", stamp, i)
			time.Sleep(2 * time.Millisecond)
		}
		file.Close()
		if err != nil {
			t.Error(err)
		}
		done <- true
	}()
	over := false
	ended := func() (bool, error) {
		select {
		case over = <-done:
		default:
		}
		return over, nil
	}
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := followLog(ctx, path, -1, &logPrinter{out: &out, errOut: &out}, ended); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i)
	}
	if out.String() != want.String() {
		t.Errorf("%d lines came, want %d", strings.Count(out.String(), "\n"), lines)
	}
}

func FuzzLogRecord(f *testing.F) {
	f.Add([]byte(stamp + "stdout F text\n"))
	f.Add([]byte("no record"))
	f.Add([]byte(stamp + "stderr P:x \x00"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var out bytes.Buffer
		if err := (&logPrinter{out: &out, errOut: &out, timestamps: true}).record(line); err != nil {
			t.Fatal(err)
		}
	})
}
