// Package undo rolls back the finished steps of an operation that failed half
// way. A Stack is a list of functions; it knows nothing of what they undo.
//
//	var back undo.Stack
//	defer back.Run()
//	...
//	back.Add(ns.Close)
//	...
//	back.Keep() // after the last step
package undo

import "log/slog"

// Stack is a list of steps to take back, last one first. The zero value is
// ready. It is not safe for concurrent use.
type Stack struct {
	steps []func() error
}

// Add remembers how to take back the step just made.
func (s *Stack) Add(step func() error) { s.steps = append(s.steps, step) }

// Keep forgets all steps: the operation succeeded.
func (s *Stack) Keep() { s.steps = nil }

// Run takes the steps back in reverse order. A step that cannot be taken back
// is logged and the others still run, for the caller is already returning the
// error that matters.
func (s *Stack) Run() {
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i](); err != nil {
			slog.Warn("cannot undo a step", "err", err)
		}
	}
	s.steps = nil
}
