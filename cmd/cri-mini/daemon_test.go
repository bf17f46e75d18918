package main

import (
	"testing"
	"time"
)

func TestEndThatHangsIsCutOff(t *testing.T) {
	d := &daemon{}
	hangs := make(chan struct{})
	d.opened.Add(func() error { <-hangs; return nil })
	code := make(chan int, 1)
	ended := d.limitEnd(time.Millisecond, func(c int) { code <- c; close(hangs) })
	d.close()
	ended()
	if got := <-code; got != 1 {
		t.Errorf("exit code %d, want 1", got)
	}
	quick := d.limitEnd(time.Hour, func(int) { t.Error("an end in time was cut off") })
	d.close()
	quick()
}
