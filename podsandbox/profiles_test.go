package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/apparmor"
)

// fakeAppArmor is a kernel with these profiles, or without AppArmor.
type fakeAppArmor struct {
	enabled bool
	loaded  []string
	cannot  error // load the default profile
	warned  int
}

func (f *fakeAppArmor) Enabled() bool { return f.enabled }

func (f *fakeAppArmor) Loaded(name string) error {
	if slices.Contains(f.loaded, name) {
		return nil
	}
	return fmt.Errorf("AppArmor profile %q: %w", name, apparmor.ErrNotLoaded)
}

func (f *fakeAppArmor) LoadDefault(context.Context) error { return f.cannot }
func (f *fakeAppArmor) WarnWithout(error)                 { f.warned++ }

func TestAppArmorProfileIsThereOrTheContainerIsNot(t *testing.T) {
	with := fakeAppArmor{enabled: true, loaded: []string{"strict"}}
	noParser := fakeAppArmor{enabled: true, cannot: fmt.Errorf("%w: the program is missing", apparmor.ErrCannotLoad)}
	broken := fakeAppArmor{enabled: true, cannot: errors.New("the parser crashed")}
	nothing := (*criapi.SecurityProfile)(nil)
	asked := func(kind criapi.SecurityProfile_ProfileType, ref string) *criapi.SecurityProfile {
		return &criapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref}
	}
	byDefault := asked(criapi.SecurityProfile_RuntimeDefault, "")
	strict := asked(criapi.SecurityProfile_Localhost, "localhost/strict")
	for name, c := range map[string]struct {
		kernel     fakeAppArmor
		profile    *criapi.SecurityProfile
		want       string // the profile, or
		field, say string // the field and the words of the error
	}{
		"nothing":                       {with, nothing, apparmor.DefaultName, "", ""},
		"default":                       {with, byDefault, apparmor.DefaultName, "", ""},
		"unconfined":                    {with, asked(criapi.SecurityProfile_Unconfined, ""), "", "", ""},
		"local":                         {with, strict, "strict", "", ""},
		"local, not loaded":             {with, asked(criapi.SecurityProfile_Localhost, "other"), "", "apparmor.localhost_ref", "other"},
		"local, no AppArmor":            {fakeAppArmor{}, strict, "", "apparmor.localhost_ref", "not enabled"},
		"default, no AppArmor":          {fakeAppArmor{}, byDefault, "", "", ""},
		"nothing, no AppArmor":          {fakeAppArmor{}, nothing, "", "", ""},
		"default, no parser":            {noParser, byDefault, "", "apparmor.profile_type", "program is missing"},
		"nothing, no parser":            {noParser, nothing, "", "", ""},
		"nothing, but the parser fails": {broken, nothing, "", "", "crashed"},
		"unconfined, no parser":         {noParser, asked(criapi.SecurityProfile_Unconfined, ""), "", "", ""},
	} {
		kernel := c.kernel
		p := &Pods{opt: Options{AppArmor: &kernel}}
		got, err := p.appArmor(t.Context(), &criapi.LinuxContainerSecurityContext{Apparmor: c.profile})
		switch {
		case c.say == "" && (err != nil || got != c.want):
			t.Errorf("%s: profile %q, %v; want %q", name, got, err, c.want)
		case c.say != "" && (err == nil || got != "" || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), c.field)):
			t.Errorf("%s: profile %q, %v; want an error about %s with %q", name, got, err, c.field, c.say)
		case c.field != "" && !errors.Is(err, ErrInvalid):
			t.Errorf("%s: %v is not ErrInvalid", name, err)
		}
		if wants := name == "nothing, no parser"; wants != (kernel.warned == 1) {
			t.Errorf("%s: %d warnings", name, kernel.warned)
		}
	}
}

// The profile is decided once, at the create. A later exec and a start after a
// restart of the daemon use the same.
func TestAppArmorProfileHoldsForExecAndAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.world.apparmor.enabled, l.world.apparmor.loaded = true, []string{"strict"}
		l.do([]string{"run", "a"})
		cfg := containerConfig("web")
		cfg.Linux.SecurityContext = &criapi.LinuxContainerSecurityContext{Apparmor: &criapi.SecurityProfile{
			ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: "strict"}}
		id, err := l.pods.Create(t.Context(), l.id("a"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.do([]string{"restart"})
		c, _ := l.pods.Container(id)
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := l.world.prepared[id].Process.AppArmor; got != "strict" {
			t.Errorf("started under %q", got)
		}
		program := new(fakeExecution)
		l.world.programs = map[string]*fakeExecution{"id": program}
		if _, _, _, err := c.ExecSync(t.Context(), []string{"id"}, 0); err != nil {
			t.Fatal(err)
		}
		if got := program.process.AppArmor; got != "strict" {
			t.Errorf("exec under %q", got)
		}
	})
}
