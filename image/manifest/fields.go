package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
)

// fields are the members of a document by their folded names.
type fields map[string]json.RawMessage

func (f fields) has(name string) bool {
	_, ok := f[fold(name)]
	return ok
}

// readFields refuses a document with an object that has one member twice, be
// it in another case. encoding/json would take the last, others take the first
// or only the one in the right case: they would see another image.
func readFields(data []byte) (fields, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("manifest is not JSON: %w", err)
	}
	if err := distinct(json.NewDecoder(bytes.NewReader(data)), false); err != nil {
		return nil, err
	}
	f := fields{}
	for name, value := range members {
		f[fold(name)] = value
	}
	return f, nil
}

// distinct reads one value. The names of annotations are free.
func distinct(d *json.Decoder, free bool) error {
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("manifest is not JSON: %w", err)
	}
	if token != json.Delim('{') && token != json.Delim('[') {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		inside := free
		if token == json.Delim('{') {
			key, err := d.Token()
			if err != nil {
				return fmt.Errorf("manifest is not JSON: %w", err)
			}
			name := fold(key.(string)) // all keys are strings
			if seen[name] && !free {
				return fmt.Errorf("manifest is ambiguous: it has %q twice in one object", key)
			}
			seen[name] = true
			inside = free || name == fold("annotations")
		}
		if err := distinct(d, inside); err != nil {
			return err
		}
	}
	_, err = d.Token() // the end of it
	return err
}

// fold makes equal what encoding/json takes for the same name: not only other
// cases, also a long s and a Kelvin sign.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}
