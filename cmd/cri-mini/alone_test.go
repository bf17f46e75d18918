package main

import (
	"context"
	"errors"
	"testing"

	"cri-mini/internal/config"
	"cri-mini/runtime/cgroup/systemd"
)

func TestAuditWithoutADaemonLooksWhereADaemonWouldMakeGroups(t *testing.T) {
	for _, test := range []struct {
		driver string
		there  bool
		want   string
	}{
		{"auto", true, "/cri_mini.slice"},
		{"auto", false, "/cri-mini"},
		{"systemd", true, "/cri_mini.slice"},
		{"systemd", false, "/cri_mini.slice"}, // it does not answer, but was asked for
		{"cgroupfs", true, "/cri-mini"},
	} {
		find := func(context.Context) (*systemd.Manager, error) {
			if !test.there {
				return nil, errors.New("not there")
			}
			return &systemd.Manager{}, nil
		}
		got, err := parentAlone(config.Config{Root: config.DefaultRoot, CgroupDriver: test.driver}, find)
		if err != nil || got != test.want {
			t.Errorf("%s, systemd there %t: %q, %v, want %q", test.driver, test.there, got, err, test.want)
		}
	}
}
