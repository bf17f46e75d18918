// Package cdi finds devices by the names that their vendors gave them, as the
// Container Device Interface describes it.
//
// A spec file of the node says for each device of one kind what a container
// needs to use it: these are its Edits. A Catalog is a list of folders with
// such files. It is read when a device is asked for and not before.
//
// The files belong to the node's administrator. The package knows no
// containers and changes nothing.
package cdi
