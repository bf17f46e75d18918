//go:build broken_pins

package broken

// Pins: a monitor that replaces another does not get the namespaces of the pods.
const Pins = true
