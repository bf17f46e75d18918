package structure

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cri-mini/internal/crashpoint"
)

// crashPoints finds the calls of crashpoint.Here in the source.
func crashPoints(t *testing.T) (found []string) {
	set := token.NewFileSet()
	for _, name := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		ast.Inspect(parse(t, set, name), func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || f.Sel.Name != "Here" {
				return true
			}
			if p, ok := f.X.(*ast.Ident); !ok || p.Name != "crashpoint" {
				return true
			}
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the name of a crash point is no literal", set.Position(call.Pos()))
				return true
			}
			point, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Errorf("%s: %v", set.Position(call.Pos()), err)
			}
			if monitors := strings.HasPrefix(name, "runtime/monitor/"); monitors != strings.HasPrefix(point, "monitor.") {
				t.Errorf("%s: %q: only points of the monitor begin with monitor.", set.Position(call.Pos()), point)
			}
			if slices.Contains(found, point) {
				t.Errorf("%s: there is another crash point %q", set.Position(call.Pos()), point)
			}
			found = append(found, point)
			return true
		})
	}
	return found
}

// What enumerates the points by the list misses none.
func TestListOfCrashPointsIsThatOfTheSource(t *testing.T) {
	found := crashPoints(t)
	for _, point := range found {
		if !slices.Contains(crashpoint.Points, point) {
			t.Errorf("%q is not listed", point)
		}
	}
	for i, point := range crashpoint.Points {
		if !slices.Contains(found, point) {
			t.Errorf("%q is listed and nowhere in the source", point)
		}
		if slices.Contains(crashpoint.Points[:i], point) {
			t.Errorf("%q is listed twice", point)
		}
	}
}
