package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"cri-mini/internal/admin"
	"cri-mini/internal/audit"
	"cri-mini/internal/config"
)

type doctorCmd struct {
	config.Config `embed:""`

	JSON bool `name:"json" help:"For programs."`
}

// checkup is what the doctor says.
type checkup struct {
	Checks []check
	Audit  audit.Report
}

// check is one thing of the node that was looked at.
type check struct {
	Name     string
	Value    string          // what was found
	Findings []audit.Finding `json:",omitempty"` // what is wrong with it
}

func (c *check) wrong(why, do string) {
	c.Findings = append(c.Findings, audit.Finding{About: audit.Wrong, Kind: c.Name, Name: c.Value, Why: why, Do: do})
}

func (c *check) notice(why, do string) {
	c.Findings = append(c.Findings, audit.Finding{About: audit.Notice, Kind: c.Name, Name: c.Value, Why: why, Do: do})
}

// Run exits with 1 when somebody should do something.
func (c *doctorCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	answer, err := daemonAt(e).Audit(ctx, admin.AuditRequest{})
	report := answer.Report
	alone := errors.Is(err, admin.ErrNoDaemon)
	if alone {
		report, err = auditAlone(c.Config)
	}
	if err != nil {
		return err
	}
	all := checkup{Checks: nodeChecks(c.Config), Audit: report}
	if alone {
		all.Checks = append(all.Checks, absent(e), monitorAlone(c.Config))
	} else {
		all.Checks = append(all.Checks, processChecks(answer.Daemon, answer.Monitor, c.Config)...)
	}
	if c.JSON {
		err = printJSON(out, all)
	} else {
		err = all.print(out)
	}
	if err == nil && all.bad() {
		return exitCode(1)
	}
	return err
}

// absent is what there is to say of a daemon that does not answer.
func absent(e *config.Endpoint) check {
	c := check{Name: "daemon", Value: "does not answer at " + e.AdminPath()}
	c.wrong("nothing is started or stopped; what was checked is what can be without it", "start it: cri-mini serve")
	return c
}

func (c checkup) bad() bool {
	for _, one := range c.Checks {
		for _, f := range one.Findings {
			if f.Bad() {
				return true
			}
		}
	}
	return c.Audit.Bad()
}

func (c checkup) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	findings := c.Audit
	for _, one := range c.Checks {
		word := "ok"
		for _, f := range one.Findings {
			if word = f.About; f.Bad() {
				break
			}
		}
		findings.Add(one.Findings...)
		fmt.Fprintf(table, "%s\t%s\t%s\n", word, one.Name, one.Value)
	}
	fmt.Fprintf(table, "%s\t%s\t%s\n", map[bool]string{false: "ok", true: "wrong"}[c.Audit.Bad()], "records", looked(c.Audit))
	if err := table.Flush(); err != nil {
		return err
	}
	if len(findings.Findings) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	findings.Sort()
	return printFindings(out, findings.Findings)
}
