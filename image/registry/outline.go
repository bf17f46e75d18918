package registry

import (
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// outline is what decoding a TOML document loses: the order of the hosts and
// the lines of the keys.
type outline struct {
	hosts []string
	lines map[string]int
}

const keySeparator = "\x00"

func readOutline(data []byte) (*outline, error) {
	o := &outline{lines: map[string]int{}}
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = o.note(&p, nil, e.Key())
		case unstable.KeyValue:
			o.keyValue(&p, table, e)
		}
	}
	return o, p.Error()
}

func (o *outline) keyValue(p *unstable.Parser, table []string, e *unstable.Node) {
	path := o.note(p, table, e.Key())
	if e.Value().Kind != unstable.InlineTable {
		return
	}
	for it := e.Value().Children(); it.Next(); {
		o.keyValue(p, path, it.Node())
	}
}

// note remembers every key on the way, where it stands first.
func (o *outline) note(p *unstable.Parser, table []string, key unstable.Iterator) []string {
	path := append([]string{}, table...)
	for key.Next() {
		path = append(path, string(key.Node().Data))
		id := strings.Join(path, keySeparator)
		if _, known := o.lines[id]; known {
			continue
		}
		o.lines[id] = p.Shape(key.Node().Raw).Start.Line
		if len(path) == 2 && path[0] == "host" {
			o.hosts = append(o.hosts, path[1])
		}
	}
	return path
}

// line is where key, or the nearest table around it, stands.
func (o *outline) line(key []string) int {
	for n := len(key); n > 0; n-- {
		if l, ok := o.lines[strings.Join(key[:n], keySeparator)]; ok {
			return l
		}
	}
	return 1
}
