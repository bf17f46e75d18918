package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"cri-mini/internal/admin"
	"cri-mini/internal/audit"
	"cri-mini/internal/config"
)

type gcCmd struct {
	config.Config `embed:""`

	DryRun bool `name:"dry-run" help:"Only show it."`
	JSON   bool `name:"json" help:"For programs."`
}

// Run needs the daemon to remove anything: only it knows what is being made.
func (c *gcCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	answer, err := daemonAt(e).Audit(ctx, admin.AuditRequest{Remove: !c.DryRun})
	report := answer.Report
	if errors.Is(err, admin.ErrNoDaemon) && c.DryRun {
		report, err = auditAlone(c.Config)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(out, report)
	} else {
		err = printLeftovers(out, report)
	}
	if err == nil && report.Bad() {
		return exitCode(1)
	}
	return err
}

func printLeftovers(out io.Writer, r audit.Report) error {
	if len(r.Findings) == 0 {
		_, err := fmt.Fprintf(out, "nothing: %s\n", looked(r))
		return err
	}
	if err := printFindings(out, r.Findings); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s\n", looked(r))
	return err
}

// printFindings has a line for what and where, and below it why and what to do.
func printFindings(out io.Writer, list []audit.Finding) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range list {
		var more []string
		if f.Owner != "" {
			more = append(more, "of "+short(strings.TrimPrefix(f.Owner, "folder of ")))
		}
		if !f.Since.IsZero() {
			more = append(more, "since "+f.Since.Local().Format(time.DateTime))
		}
		heading := f.About + "\t" + f.Kind + "\t" + f.Name
		if len(more) > 0 { // a last cell that is empty would leave spaces at the end
			heading += "\t" + strings.Join(more, ", ")
		}
		fmt.Fprintln(table, heading)
		if f.Why != "" {
			fmt.Fprintf(table, "\t  %s\n", f.Why)
		}
		if f.Do != "" {
			fmt.Fprintf(table, "\t  do: %s\n", f.Do)
		}
	}
	return table.Flush()
}

// looked is how much was compared.
func looked(r audit.Report) string {
	all := 0
	for _, n := range r.Looked {
		all += n
	}
	return fmt.Sprintf("%d things compared with the records in %s", all, r.Took.Round(time.Millisecond))
}
