//go:build broken_adopted

package broken

// AdoptedExit: a monitor does not ask for the exit code of what another had started.
const AdoptedExit = true
