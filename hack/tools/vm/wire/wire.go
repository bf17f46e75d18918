// Package wire is what the program outside and the first process of the virtual
// machine tell each other over a serial port:
//
//	outside                           guest
//	                        ◀──       Report: ready
//	Request                 ──▶       unpacks the payload, runs the command
//	                        ◀──       Report: output, any number of them
//	                        ◀──       Report: ended
//	ends the machine
//
// A Request and a Report are one line of JSON each. The package knows neither
// the machine nor what runs in it.
package wire

// Port is the name of the serial port.
const Port = "control"

// InitArgument is the kernel argument that names another first program, which
// runs the guest as a service of its own.
const InitArgument = "vm_init="

// Names of the directories of the payload, of the results, and of the disk that
// outlives the machine.
const (
	In   = "/in"
	Out  = "/out"
	Disk = "/disk"
)

// Request says what to run.
type Request struct {
	Args []string
	Env  []string // NAME=VALUE, besides PATH and HOME
	Out  bool     // pack what the command leaves in Out
	Disk bool     // mount the disk that is kept
}

// Report is the guest's word. A guest that cannot go on says why in Error.
type Report struct {
	Ready          bool   `json:",omitempty"`
	Stdout, Stderr []byte `json:",omitempty"`
	Ended          bool   `json:",omitempty"`
	Status         int    `json:",omitempty"` // of the command, as a shell counts: 128 and the signal
	Error          string `json:",omitempty"`
}
