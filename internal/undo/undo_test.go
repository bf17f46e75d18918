package undo

import (
	"errors"
	"reflect"
	"testing"
)

func TestRunTakesBackInReverseAndOnlyOnce(t *testing.T) {
	var got []int
	var back Stack
	for i := range 3 {
		back.Add(func() error { got = append(got, i); return errors.New("logged, not fatal") })
	}
	back.Run()
	back.Run()
	if want := []int{2, 1, 0}; !reflect.DeepEqual(got, want) {
		t.Fatalf("steps taken back: %v, want %v", got, want)
	}
}

func TestKeepForgetsTheSteps(t *testing.T) {
	var back Stack
	back.Add(func() error { t.Error("a kept step was taken back"); return nil })
	back.Keep()
	back.Run()
}
