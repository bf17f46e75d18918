package network

import (
	"errors"
	"fmt"
)

// ErrInvalid is what is wrong whatever the state of the node: two mappings of
// one host port in a pod, a range that is none.
var ErrInvalid = errors.New("invalid")

// FieldError is a value of a request that cannot be had.
type FieldError struct {
	Field  string // of the pod or the configuration: port_mappings[0].host_port, pod_cidr
	Value  string
	Reason string
	Always bool // it is ErrInvalid; else it may be had at another time
}

func (e *FieldError) Error() string        { return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Reason) }
func (e *FieldError) Is(target error) bool { return e.Always && target == ErrInvalid }

// takenError is a host port that somebody else has.
type takenError struct {
	port PortMapping
	by   string
}

func (e *takenError) Error() string { return fmt.Sprintf("%s is taken by %s", e.port, e.by) }

// inPod says which mapping of a pod a port is that is taken.
func inPod(pod Pod, err error) error {
	taken := (*takenError)(nil)
	if !errors.As(err, &taken) {
		return err
	}
	for i, p := range pod.Ports {
		if p.plain() == taken.port {
			return portError(i, "host_port", p.HostPort, false, "%s", taken)
		}
	}
	return err
}

func portError(i int, field string, value any, always bool, reason string, args ...any) error {
	return &FieldError{
		Field: fmt.Sprintf("port_mappings[%d].%s", i, field), Value: fmt.Sprint(value),
		Reason: fmt.Sprintf(reason, args...), Always: always,
	}
}
