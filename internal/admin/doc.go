// Package admin is the second way to talk to the daemon, for what the
// Container Runtime Interface cannot say: pulls that report progress, imports,
// a terminal without a TCP port, running something in one go, the end of the
// daemon.
//
// It is HTTP with JSON on a unix socket that only root can open. A Client is
// the command line's end, a Server the daemon's. A Session is a running
// program seen from the client; frame.go shows the conversation.
package admin
