package systemd

import (
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Shares are values of the files of a group that count against its neighbours:
// a weight, or memory that is not taken. They have to be those of the scope, and
// only systemd may set them: else it would reset them at a reload.
type Shares map[string]string

// shareProperties are the names that systemd has for files.
var shareProperties = map[string]string{
	"cpu.weight": "CPUWeight", "cpu.idle": "CPUWeight", "io.weight": "IOWeight", "memory.min": "MemoryMin", "memory.low": "MemoryLow",
}

// ShareFiles are the files of Shares.
func ShareFiles() []string {
	return []string{"cpu.idle", "cpu.weight", "io.weight", "memory.low", "memory.min"}
}

func (s Shares) properties() ([]property, error) {
	var list []property
	for _, file := range ShareFiles() {
		value, named := s[file]
		if !named || file == "cpu.weight" && s["cpu.idle"] == "1" {
			continue
		}
		if file == "cpu.idle" {
			if value == "1" {
				list = append(list, set("CPUWeight", uint64(0))) // systemd's word for it
			}
			continue
		}
		number, err := parseShare(strings.TrimPrefix(value, "default "))
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", file, value, err)
		}
		list = append(list, set(shareProperties[file], number))
	}
	return slices.Clip(list), nil
}

func parseShare(value string) (uint64, error) {
	if value == "max" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(value, 10, 64)
}

// Share changes shares of a scope, until the next boot as all of it.
func (m *Manager) Share(ctx context.Context, group string, s Shares) error {
	changed, err := s.properties()
	if err != nil || len(changed) == 0 {
		return err
	}
	name := path.Base(group)
	return m.simple(ctx, name, "SetUnitProperties", name, true, changed)
}
