// Package node tests whole nodes: the program as users run it, real daemons
// with monitors, spoken to over their sockets as the kubelet does.
//
// A node is one daemon with its folders and its monitor. A pod and a container
// are what the tests make on it, from images of a registry in this process. A
// census counts everything a node can leave behind. All of it happens in an
// enclosure, namespaces of the test's own, so that a census sees nothing else.
package node
