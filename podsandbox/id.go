package podsandbox

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// idLength is what the kubelet expects to find in the name of a cgroup.
const idLength = 64

func newID() string {
	b := make([]byte, idLength/2)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// find looks up a thing by its id or by the beginning of it, if only one
// begins so.
func find[T any](table map[string]T, what, id string) (T, error) {
	var none T
	if found, ok := table[id]; ok {
		return found, nil
	}
	if id == "" || len(id) >= idLength {
		return none, fmt.Errorf("%s %q: %w", what, id, ErrNotFound)
	}
	found, count := none, 0
	for full, thing := range table {
		if strings.HasPrefix(full, id) {
			found = thing
			count++
		}
	}
	switch count {
	case 0:
		return none, fmt.Errorf("%s %q: %w", what, id, ErrNotFound)
	case 1:
		return found, nil
	}
	return none, fmt.Errorf("%s %q: %w of %d ids", what, id, ErrAmbiguous, count)
}
