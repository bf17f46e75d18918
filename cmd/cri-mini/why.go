package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
	"cri-mini/podsandbox/history"
)

type whyCmd struct {
	Name string `arg:"" help:"Container or pod: its name, namespace/name, id or the beginning of it. It may be gone."`
	JSON bool   `name:"json" help:"For programs."`
}

func (c *whyCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	answer, err := daemonAt(e).Why(ctx, admin.WhyRequest{Word: c.Name})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(out, answer)
	}
	return printAnswer(out, answer, time.Now())
}

func printJSON(out io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}

// printAnswer is what it is, why, and what happened, the latest last.
func printAnswer(out io.Writer, a history.Answer, now time.Time) error {
	var text strings.Builder
	writeAnswer(&text, a, now)
	entries := a.Entries
	for _, c := range a.Containers {
		text.WriteString("\n")
		writeAnswer(&text, c, now)
		entries = append(entries, c.Entries...)
	}
	if len(entries) > 0 {
		text.WriteString("\nhistory\n")
	}
	history.Sort(entries)
	for _, e := range entries {
		lines := strings.ReplaceAll(e.Line(), "\n", "\n    ")
		fmt.Fprintf(&text, "  %s  %s\n", e.Began.Local().Format("2006-01-02 15:04:05.000"), lines)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func writeAnswer(text *strings.Builder, a history.Answer, now time.Time) {
	if a.Container == "" {
		fmt.Fprintf(text, "pod %s/%s %s: %s", a.Namespace, a.Pod, short(a.PodID), a.State)
	} else {
		fmt.Fprintf(text, "container %s %s of pod %s/%s: %s", a.Container, short(a.ContainerID), a.Namespace, a.Pod, a.State)
	}
	if !a.Since.IsZero() {
		word := "at"
		if slices.Contains([]string{"running", "ready", "not ready", "being made"}, a.State) {
			word = "since"
		}
		fmt.Fprintf(text, " %s %s (%s ago)", word, a.Since.Local().Format(time.DateTime), age(now.Sub(a.Since)))
	}
	text.WriteString("\n")
	for _, sentence := range a.Because {
		fmt.Fprintf(text, "  %s\n", strings.ReplaceAll(sentence, "\n", " "))
	}
}
