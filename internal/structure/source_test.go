package structure

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository, seen from this package.
const root = "../.."

const (
	maxFileLines     = 600
	maxFunctionLines = 100
)

// files lists what ends so, with names as they are in the repository.
func files(t *testing.T, suffix string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path != root && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || e.Name() == "bin") {
			return filepath.SkipDir
		}
		if e.Type().IsRegular() && strings.HasSuffix(path, suffix) {
			list = append(list, strings.TrimPrefix(path, root+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatalf("no files *%s below %s", suffix, root)
	}
	return list
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parse(t *testing.T, set *token.FileSet, name string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(set, name, read(t, name), parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	comments := map[string][]string{}
	names := map[string]string{}
	set := token.NewFileSet()
	for _, name := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, dir := parse(t, set, name), filepath.Dir(name)
		names[dir] = file.Name.Name
		if doc := file.Doc.Text(); doc != "" {
			comments[dir] = append(comments[dir], doc)
		}
	}
	for dir, name := range names {
		if len(comments[dir]) != 1 {
			t.Errorf("%s: %d package comments, want 1", dir, len(comments[dir]))
			continue
		}
		doc, begins := comments[dir][0], "Package "+name+" "
		if name == "main" {
			begins = "Command " + filepath.Base(dir) + " "
		}
		if !strings.HasPrefix(doc, begins) || strings.Count(doc, "\n") < 2 {
			t.Errorf("%s: package comment %.60q, want at least two lines that begin with %q", dir, doc, begins)
		}
	}
}

// noNouns are names that say nothing, and two that cannot be used.
var noNouns = []string{"util", "utils", "helper", "helpers", "common", "misc", "shared", "impl", "manager", "runtime", "init"}

func TestPackagesAreNamedByANounOfTheirOwn(t *testing.T) {
	set := token.NewFileSet()
	for _, name := range files(t, ".go") {
		if pkg := parse(t, set, name).Name.Name; slices.Contains(noNouns, pkg) {
			t.Errorf("%s: package %s", name, pkg)
		}
	}
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	set := token.NewFileSet()
	for _, name := range files(t, ".go") {
		if lines := strings.Count(read(t, name), "\n"); lines > maxFileLines {
			t.Errorf("%s has %d lines, at most %d", name, lines, maxFileLines)
		}
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, d := range parse(t, set, name).Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if lines := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1; lines > maxFunctionLines {
				t.Errorf("%s: function %s has %d lines, at most %d", name, f.Name.Name, lines, maxFunctionLines)
			}
		}
	}
}

func TestNothingIsLeftToDo(t *testing.T) {
	// Put together here, so that this file does not hold the words.
	mark := regexp.MustCompile(`\b(` + "TO" + "DO|FIX" + "ME|XX" + `X)\b`)
	for _, name := range files(t, ".go") {
		for i, line := range strings.Split(read(t, name), "\n") {
			if mark.MatchString(line) {
				t.Errorf("%s:%d: %s", name, i+1, strings.TrimSpace(line))
			}
		}
	}
}
