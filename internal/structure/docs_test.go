package structure

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/config"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	quoted   = regexp.MustCompile("`([^`\n]+)`")
	fileName = regexp.MustCompile(`^[a-z][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)+\.(go|s|golden|md|toml|service)$`)
	testName = regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]*$`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// documents are what people read.
func documents(t *testing.T) []string {
	return slices.DeleteFunc(files(t, ".md"), func(name string) bool { return strings.HasPrefix(name, "test/") })
}

// anchor is the name that a heading gets as the target of a link.
func anchor(title string) string {
	title = strings.ReplaceAll(strings.ToLower(title), " ", "-")
	return regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(title, "")
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, name := range documents(t) {
		for _, found := range link.FindAllStringSubmatch(read(t, name), -1) {
			path, fragment, _ := strings.Cut(found[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, found[1], err)
				continue
			}
			if fragment == "" {
				continue
			}
			known := slices.ContainsFunc(heading.FindAllStringSubmatch(read(t, target), -1), func(h []string) bool { return anchor(h[1]) == fragment })
			if !known {
				t.Errorf("%s: link to %s: no such heading", name, found[1])
			}
		}
	}
}

func TestDocumentsNameOnlyWhatExists(t *testing.T) {
	tests := map[string]bool{}
	set := token.NewFileSet()
	for _, name := range files(t, "_test.go") {
		for _, d := range parse(t, set, name).Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[f.Name.Name] = true
			}
		}
	}
	for _, name := range documents(t) {
		for _, found := range quoted.FindAllStringSubmatch(read(t, name), -1) {
			word := found[1]
			if testName.MatchString(word) && !tests[word] {
				t.Errorf("%s: there is no %s", name, word)
			}
			if !fileName.MatchString(word) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, word)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Every call that is served has its page, and no other.
func TestEveryCallHasItsPage(t *testing.T) {
	served := calls(t)
	text := read(t, "docs/design.md")
	_, text, _ = strings.Cut(text, "\n## The calls\n")
	text, _, _ = strings.Cut(text, "\n## ")
	for _, h := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(text, -1) {
		if !served[h[1]] {
			t.Errorf("docs/design.md has a page for %s, which is not served", h[1])
		}
		delete(served, h[1])
	}
	for name := range served {
		t.Errorf("docs/design.md has no page for %s", name)
	}
}

// Whoever reads the README is told what is missing.
func TestCallsThatAreNotServedAreNamed(t *testing.T) {
	served, text := calls(t), read(t, "README.md")
	for _, typ := range []reflect.Type{reflect.TypeFor[criapi.RuntimeServiceServer](), reflect.TypeFor[criapi.ImageServiceServer]()} {
		for call := range typ.Methods() {
			if !call.IsExported() {
				continue
			}
			if named := regexp.MustCompile(`\b` + call.Name + `\b`).MatchString(text); named == served[call.Name] {
				t.Errorf("README.md names %s as not served: %t; served: %t", call.Name, named, served[call.Name])
			}
		}
	}
}

// calls are the handlers of package cri.
func calls(t *testing.T) map[string]bool {
	t.Helper()
	served := map[string]bool{}
	set := token.NewFileSet()
	for _, name := range files(t, ".go") {
		if filepath.Dir(name) != "cri" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, d := range parse(t, set, name).Decls {
			if f, ok := d.(*ast.FuncDecl); ok && isCall(f) {
				served[f.Name.Name] = true
			}
		}
	}
	if len(served) < 20 {
		t.Fatalf("found only the calls %v", served)
	}
	return served
}

// isCall knows a handler by its result, *criapi.<Name>Response, or by the
// stream of results it writes to, criapi.<service>_<Name>Server.
func isCall(f *ast.FuncDecl) bool {
	if f.Recv == nil || !f.Name.IsExported() {
		return false
	}
	params, results := f.Type.Params.List, f.Type.Results
	switch results.NumFields() {
	case 1:
		return len(params) == 2 && strings.HasSuffix(selected(params[1].Type), "_"+f.Name.Name+"Server")
	case 2:
		star, ok := results.List[0].Type.(*ast.StarExpr)
		return ok && selected(star.X) == f.Name.Name+"Response"
	}
	return false
}

// selected is the name in package.name.
func selected(x ast.Expr) string {
	if s, ok := x.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

func TestExampleConfigurationIsTheDefaults(t *testing.T) {
	values, err := config.Load(filepath.Join(root, "docs/config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[config.Config](), reflect.TypeFor[config.Endpoint]()} {
		for field := range typ.Fields() {
			key, want := field.Tag.Get("toml"), field.Tag.Get("default")
			if got, there := values[key]; !there || fmt.Sprint(got) != want {
				t.Errorf("docs/config.toml: %s = %v, want the default %q", key, got, want)
			}
		}
	}
}
