package structure

import (
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	criTable   = "docs/cri.md"
	criPassing = "test/critest/passing.txt"
)

// row is one line of the table: what it is about, and the tests that prove it.
type row struct {
	line   int
	keys   []string // a call, Message.field, an enum, or a message of Windows
	text   string
	proofs []string // TestName, TestName/subtest, or critest: part of a spec's name
}

var (
	cells   = regexp.MustCompile(`^\|([^|]*)\|([^|]*)\|([^|]*)\|$`)
	proof   = regexp.MustCompile("`((?:Test|Fuzz)[^`]*)`|critest \"([^\"]+)\"")
	section = regexp.MustCompile(`^#+ (.*)$`)
)

// rows reads the table. Below the heading of a message stand its fields by
// their names alone; a name with a dot is complete in itself.
func rows(t *testing.T) []row {
	t.Helper()
	var list []row
	heading := ""
	for i, line := range strings.Split(read(t, criTable), "\n") {
		if h := section.FindStringSubmatch(line); h != nil {
			heading = h[1]
			continue
		}
		cell := cells.FindStringSubmatch(line)
		if cell == nil {
			continue
		}
		r := row{line: i + 1, text: cell[2]}
		for _, name := range quoted.FindAllStringSubmatch(cell[1], -1) {
			key := name[1]
			if _, message := messages()[heading]; message && !strings.Contains(key, ".") {
				key = heading + "." + key
			}
			r.keys = append(r.keys, key)
		}
		for _, found := range proof.FindAllStringSubmatch(cell[3], -1) {
			if found[1] != "" {
				r.proofs = append(r.proofs, found[1])
			} else {
				r.proofs = append(r.proofs, "critest: "+found[2])
			}
		}
		if len(r.keys) > 0 {
			list = append(list, r)
		}
	}
	return list
}

func criFile() protoreflect.FileDescriptor {
	return (&criapi.Mount{}).ProtoReflect().Descriptor().ParentFile()
}

func criCalls() []string {
	var calls []string
	for i := range criFile().Services().Len() {
		methods := criFile().Services().Get(i).Methods()
		for j := range methods.Len() {
			calls = append(calls, string(methods.Get(j).Name()))
		}
	}
	return calls
}

// messages are those that the calls take, give and contain, by their names.
func messages() map[string]protoreflect.MessageDescriptor {
	found := map[string]protoreflect.MessageDescriptor{}
	var walk func(protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		if name := string(m.Name()); !m.IsMapEntry() {
			if _, known := found[name]; known {
				return
			}
			found[name] = m
		}
		for i := range m.Fields().Len() {
			if sub := m.Fields().Get(i).Message(); sub != nil {
				walk(sub)
			}
		}
	}
	for i := range criFile().Services().Len() {
		methods := criFile().Services().Get(i).Methods()
		for j := range methods.Len() {
			walk(methods.Get(j).Input())
			walk(methods.Get(j).Output())
		}
	}
	return found
}

// promised is all that must have a row. A message of Windows is one.
func promised() []string {
	want := criCalls()
	for name, m := range messages() {
		if strings.HasPrefix(name, "Windows") {
			want = append(want, name)
			continue
		}
		for i := range m.Fields().Len() {
			field := m.Fields().Get(i)
			want = append(want, name+"."+string(field.Name()))
			if e := field.Enum(); e != nil {
				want = append(want, string(e.Name()))
			}
		}
	}
	slices.Sort(want)
	return slices.Compact(want)
}

// A new version of the interface makes this fail until someone has decided
// what its new fields do, and has shown it.
func TestEveryFieldOfTheCRIIsInTheTable(t *testing.T) {
	in := map[string]int{}
	for _, r := range rows(t) {
		for _, key := range r.keys {
			if in[key] != 0 {
				t.Errorf("%s:%d: %s was already in line %d", criTable, r.line, key, in[key])
			}
			in[key] = r.line
		}
		if len(strings.Fields(r.text)) < 2 {
			t.Errorf("%s:%d: %v: %q does not say what it does", criTable, r.line, r.keys, r.text)
		}
	}
	for _, key := range promised() {
		if in[key] == 0 {
			t.Errorf("%s has no row for %s", criTable, key)
		}
		delete(in, key)
	}
	for key, line := range in {
		t.Errorf("%s:%d: the interface has no %s", criTable, line, key)
	}
	if calls := len(criCalls()); calls != 43 {
		t.Errorf("the interface has %d calls, want the 43 that the documents speak of", calls)
	}
}

// A row names every value of an enumeration, or how many there are.
func TestEveryValueOfTheCRIIsInTheTable(t *testing.T) {
	text := map[string]string{}
	for _, r := range rows(t) {
		for _, key := range r.keys {
			text[key] = r.text
		}
	}
	for name, m := range messages() {
		for i := range m.Fields().Len() {
			e := m.Fields().Get(i).Enum()
			if e == nil {
				continue
			}
			said := text[string(e.Name())]
			if strings.Contains(said, fmt.Sprint(e.Values().Len(), " values")) {
				continue
			}
			for j := range e.Values().Len() {
				if value := string(e.Values().Get(j).Name()); !strings.Contains(said, value) {
					t.Errorf("%s: the row of %s (used by %s) does not name %s", criTable, e.Name(), name, value)
				}
			}
		}
	}
}

func TestEveryRowOfTheCRITableHasItsProof(t *testing.T) {
	known := proofs(t)
	specs := read(t, criPassing)
	for _, r := range rows(t) {
		if len(r.proofs) == 0 {
			t.Errorf("%s:%d: %v has no proof", criTable, r.line, r.keys)
		}
		for _, p := range r.proofs {
			if spec, suite := strings.CutPrefix(p, "critest: "); suite {
				if !strings.Contains(specs, spec) {
					t.Errorf("%s:%d: %v: no spec %q in %s", criTable, r.line, r.keys, spec, criPassing)
				}
				continue
			}
			name, sub, hasSub := strings.Cut(p, "/")
			subtests, there := known[name]
			if !there {
				t.Errorf("%s:%d: %v: there is no %s", criTable, r.line, r.keys, name)
			} else if hasSub && !subtests[sub] {
				t.Errorf("%s:%d: %v: %s has no subtest %q", criTable, r.line, r.keys, name, sub)
			}
		}
	}
}

// proofs are all test functions, with the words in the files that hold them
// and the names of their golden files: among those are the names of subtests.
func proofs(t *testing.T) map[string]map[string]bool {
	t.Helper()
	known := map[string]map[string]bool{}
	set := token.NewFileSet()
	for _, name := range files(t, "_test.go") {
		file := parse(t, set, name)
		words := map[string]bool{}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if word, err := strconv.Unquote(l.Value); err == nil {
					words[word] = true
				}
			}
			return true
		})
		scripts, err := filepath.Glob(filepath.Join(root, filepath.Dir(name), "testdata/*/*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, script := range scripts {
			words[strings.TrimSuffix(filepath.Base(script), ".txt")] = true
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !testName.MatchString(f.Name.Name) {
				continue
			}
			if known[f.Name.Name] == nil {
				known[f.Name.Name] = map[string]bool{}
			}
			for word := range words {
				known[f.Name.Name][word] = true
			}
		}
	}
	return known
}
