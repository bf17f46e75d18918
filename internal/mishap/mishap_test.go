package mishap

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestPanicIsAnErrorWithItsStackInTheLog(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	err := Caught(log, "the test", func() error { panic("no such luck") })
	if !errors.Is(err, Err) || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("error %v, want one that says what panicked", err)
	}
	for _, want := range []string{"the test", "no such luck", "mishap_test.go"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log says %q, want %q in it", text.String(), want)
		}
	}
	own := errors.New("its own")
	if err := Caught(log, "the test", func() error { return own }); err != own {
		t.Errorf("error %v, want that of the work", err)
	}
}
