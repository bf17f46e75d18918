package stream

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

// clumsy is Pods of which something panics.
type clumsy struct {
	*machine
	in atomic.Pointer[string]
}

func (c *clumsy) fail(where string) {
	if in := c.in.Load(); in != nil && *in == where {
		panic("no such luck in " + where)
	}
}

func (c *clumsy) NetNS(pod string) (*os.File, error) {
	c.fail("NetNS")
	return c.machine.NetNS(pod)
}

func (c *clumsy) Exec(ctx context.Context, container string, args []string, tty bool, streams podsandbox.ExecIO) (podsandbox.Execution, error) {
	c.fail("Exec")
	run, err := c.machine.Exec(ctx, container, args, tty, streams)
	return &clumsyRun{run, c}, err
}

type clumsyRun struct {
	podsandbox.Execution
	c *clumsy
}

func (r *clumsyRun) Wait(ctx context.Context) (int, error) {
	r.c.fail("Wait")
	return r.Execution.Wait(ctx)
}

func (r *clumsyRun) Kill() error {
	err := r.Execution.Kill()
	if in := r.c.in.Load(); in != nil && *in == "Wait" {
		r.Execution.Wait(context.Background()) // nobody else does
	}
	return err
}

func (r *clumsyRun) Resize(w, h uint16) error {
	r.c.fail("Resize")
	return r.Execution.Resize(w, h)
}

func (r *clumsyRun) Stdin() io.WriteCloser { return clumsyPipe{r.Execution.Stdin(), r.c} }
func (r *clumsyRun) Stdout() io.ReadCloser { return clumsyOutput{r.Execution.Stdout(), r.c} }

type clumsyPipe struct {
	io.WriteCloser
	c *clumsy
}

func (p clumsyPipe) Write(b []byte) (int, error) {
	p.c.fail("stdin")
	return p.WriteCloser.Write(b)
}

type clumsyOutput struct {
	io.ReadCloser
	c *clumsy
}

func (p clumsyOutput) Read(b []byte) (int, error) {
	p.c.fail("stdout")
	return p.ReadCloser.Read(b)
}

func TestPanicEndsItsConnectionAndNoOther(t *testing.T) {
	noGoroutines(t)
	for _, where := range []string{"Exec", "Wait", "Resize", "stdin", "stdout", "NetNS"} {
		t.Run(where, func(t *testing.T) {
			log := captureLog(t)
			m := &clumsy{machine: newMachine()}
			s := serve(t, m)
			other := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"cat"}, Stdin: true, Stdout: true}), v4)
			status, otherOut, otherIn := other.stream("streamType", "error"), other.stream("streamType", "stdout"), other.stream("streamType", "stdin")
			<-m.started
			io.WriteString(otherIn, "x")
			io.ReadFull(otherOut, make([]byte, 1)) // it does no more by itself

			m.in.Store(&where)
			var c *client
			if where == "NetNS" {
				c = forward(t, s)
				c.stream("streamType", "error", "port", "1", "requestID", "1")
				c.stream("streamType", "data", "port", "1", "requestID", "1")
			} else {
				c = dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdin: true, Stdout: true, Tty: where == "Resize"}), v4)
				c.stream("streamType", "error")
				c.stream("streamType", "stdout")
				in := c.stream("streamType", "stdin")
				if where == "Resize" {
					size := c.stream("streamType", "resize")
					io.WriteString(size, `{"Width":120,"Height":40}{"Width":121,"Height":41}`)
				}
				io.WriteString(in, "x")
			}
			select {
			case <-c.conn.CloseChan():
			case <-t.Context().Done():
			}
			if where != "NetNS" && where != "Exec" {
				pid := <-m.started
				eventually(t, "the program is dead", func() bool { return gone(pid) })
			}
			for _, want := range []string{"no such luck in " + where, "panic_test.go"} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("the log says %q, want %q in it", log.String(), want)
				}
			}
			m.in.Store(nil)
			otherIn.Close()
			if got := text(t, status); !strings.Contains(got, "Success") {
				t.Errorf("the other connection ended with %s", got)
			}
			echoes(t, s)
		})
	}
}

// A panic in a goroutine that nobody guards ends the daemon.
func TestEveryGoroutineIsGuarded(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		guarded := func(f ast.Node) bool {
			for {
				switch n := f.(type) {
				case *ast.FuncLit: // of nothing else
					if len(n.Body.List) != 1 {
						return false
					}
					f = n.Body.List[0]
				case *ast.ExprStmt:
					f = n.X
				case *ast.CallExpr:
					name, ok := n.Fun.(*ast.Ident)
					return ok && name.Name == "guarded"
				default:
					return false
				}
			}
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			var begins ast.Node
			switch n := n.(type) {
			case *ast.GoStmt:
				begins = n.Call
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "Go" || f.Sel.Name == "AfterFunc" || f.Sel.Name == "Serve" && len(n.Args) == 1) {
					begins = n.Args[len(n.Args)-1]
				}
			}
			if begins != nil {
				if found++; !guarded(begins) && file != "server.go" { // net/http guards its own
					t.Errorf("%s: a goroutine that nobody guards", set.Position(begins.Pos()))
				}
			}
			return true
		})
	}
	if found < 5 {
		t.Errorf("%d goroutines are begun, want some more: this test looks for the wrong thing", found)
	}
}
