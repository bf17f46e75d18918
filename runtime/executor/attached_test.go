package executor

import (
	"fmt"
	"io"
	"testing"

	"cri-mini/runtime/spec"
)

func TestStartAttachedMissesNothingAndEndsTheInput(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	for i := range 20 { // a program that writes at once and ends
		id := fmt.Sprint("quick", i)
		if err := n.Prepare(t.Context(), n.container(id, nil, "echo", id)); err != nil {
			t.Fatal(err)
		}
		_, view, err := n.StartAttached(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(view.Stdout()); string(text) != id+"\n" {
			t.Errorf("attached read %q, %v; want %s", text, err, id)
		}
		view.Close()
		n.exit(id)
	}

	cat := n.container("cat", func(s *spec.Container) { s.Stdin, s.StdinOnce = true, true }, "cat")
	if err := n.Prepare(t.Context(), cat); err != nil {
		t.Fatal(err)
	}
	_, view, err := n.StartAttached(t.Context(), "cat")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	io.WriteString(view.Stdin(), "to the end")
	view.Stdin().Close() // the output stays attached
	if text, err := io.ReadAll(view.Stdout()); string(text) != "to the end" {
		t.Errorf("attached read %q, %v", text, err)
	}
	if exit := n.exit("cat"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}
