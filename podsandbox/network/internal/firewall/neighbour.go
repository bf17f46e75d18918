package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Taken tells which table of another instance forwards one of the ports; ""
// when none does. Two tables would both match, and the one made first would
// win without a word.
func (t *Table) Taken(prefix string, ports []Port) (table string, port Port, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.conn()
	if err != nil {
		return "", Port{}, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", Port{}, errors.Join(fmt.Errorf("list nftables tables: %w", err), t.reset())
	}
	for _, other := range tables {
		if other.Name == t.name || !strings.HasPrefix(other.Name, prefix) {
			continue
		}
		elements, err := c.GetSetElements(openedSet(other))
		if errors.Is(err, unix.ENOENT) {
			continue // removed meanwhile, or not of our making
		}
		if err != nil {
			return "", Port{}, errors.Join(fmt.Errorf("nftables table %s: %w", other.Name, err), t.reset())
		}
		for _, p := range ports {
			key := hostPorts{}.key(p)
			for _, e := range elements {
				if bytes.Equal(e.Key, key) {
					return other.Name, p, nil
				}
			}
		}
	}
	return "", Port{}, nil
}
