// Package broken leaves out a step of recovery in programs that are built to be
// found wrong.
//
// Each constant is a step that is left out. In every program that is built
// without its tag it is false, and the compiler leaves nothing of it. With the
// tags hack/testcrash shows that the tests of crash points and of power cuts fail
// when they should.
// The package knows no step.
package broken
