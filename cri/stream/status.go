package stream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// exitError is the end of a program that did not end well.
type exitError struct{ code int }

func (e *exitError) Error() string {
	return fmt.Sprintf("command terminated with non-zero exit code: exit code %d", e.code)
}

// status is how a program ended, as Kubernetes says it (metav1.Status).
type status struct {
	Metadata struct{}       `json:"metadata"`
	Status   string         `json:"status"`
	Message  string         `json:"message,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Details  *statusDetails `json:"details,omitempty"`
	Code     int            `json:"code,omitempty"`
}

type statusDetails struct {
	Causes []statusCause `json:"causes"`
}

type statusCause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// statusText is what the client's error stream gets. Protocols before the
// fourth know only a text, and nothing for success.
func statusText(err error, structured bool) []byte {
	if !structured {
		if err == nil {
			return nil
		}
		return []byte(err.Error())
	}
	s := status{Status: "Success"}
	switch e := err.(type) {
	case nil:
	case *exitError:
		s.Status, s.Reason, s.Message = "Failure", "NonZeroExitCode", e.Error()
		s.Details = &statusDetails{[]statusCause{{"ExitCode", strconv.Itoa(e.code)}}}
	default:
		s.Status, s.Reason, s.Message, s.Code = "Failure", "InternalError", err.Error(), http.StatusInternalServerError
	}
	text, _ := json.Marshal(s) // strings and numbers only
	return text
}
