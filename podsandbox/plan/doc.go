// Package plan turns what the CRI asks for into what the executor does.
//
// Sandbox answers for a pod. A Request is one container together with all
// that bears on it, Container answers it with a Plan, and Facts is what the
// node is like. They are functions without disk, clock or kernel, held by
// golden files. All that can be wrong with a request by itself is found here
// and told by field and value.
//
// The package starts nothing and remembers nothing.
package plan
