// Package structure holds no code, only tests of the repository as a whole:
// which package may know which, how large files grow, that every package says
// what it is for, that documents name only what exists, and that the program
// is one static file whose monitor starts light.
//
// The rules are docs/design.md, "Who knows whom". A test that fails here asks
// for a discussion of that picture, not for an exception.
package structure
