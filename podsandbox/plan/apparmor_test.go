package plan

//lint:file-ignore SA1019 the deprecated field stands in for the structured one.

import (
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type confinement = criapi.LinuxContainerSecurityContext

func structured(kind criapi.SecurityProfile_ProfileType, ref string) *criapi.SecurityProfile {
	return &criapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref}
}

const (
	runtimeDefault = criapi.SecurityProfile_RuntimeDefault
	unconfined     = criapi.SecurityProfile_Unconfined
	localhost      = criapi.SecurityProfile_Localhost
)

func TestAppArmorProfileIsWhatIsAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		asked *confinement
		kind  criapi.SecurityProfile_ProfileType
		local string
		said  bool
	}{
		"nothing":                    {&confinement{}, runtimeDefault, "", false},
		"default":                    {&confinement{Apparmor: structured(runtimeDefault, "")}, runtimeDefault, "", true},
		"unconfined":                 {&confinement{Apparmor: structured(unconfined, "")}, unconfined, "", true},
		"local":                      {&confinement{Apparmor: structured(localhost, "strict")}, localhost, "strict", true},
		"local with a prefix":        {&confinement{Apparmor: structured(localhost, "localhost/strict")}, localhost, "strict", true},
		"local, a path":              {&confinement{Apparmor: structured(localhost, "/usr/bin/*")}, localhost, "/usr/bin/*", true},
		"old default":                {&confinement{ApparmorProfile: "runtime/default"}, runtimeDefault, "", true},
		"old unconfined":             {&confinement{ApparmorProfile: "unconfined"}, unconfined, "", true},
		"old local":                  {&confinement{ApparmorProfile: "localhost/strict"}, localhost, "strict", true},
		"old local without prefix":   {&confinement{ApparmorProfile: "strict"}, localhost, "strict", true},
		"structured before old":      {&confinement{ApparmorProfile: "localhost/other", Apparmor: structured(localhost, "strict")}, localhost, "strict", true},
		"unconfined before old":      {&confinement{ApparmorProfile: "localhost/other", Apparmor: structured(unconfined, "")}, unconfined, "", true},
		"privileged is not confined": {&confinement{Privileged: true, Apparmor: structured(localhost, "strict")}, unconfined, "", false},
	} {
		got, err := AppArmorProfile(c.asked)
		if err != nil || got.Kind != c.kind || got.Name != c.local || got.Asked != c.said {
			t.Errorf("%s is %+v, %v; want %v %q, asked %t", name, got, err, c.kind, c.local, c.said)
		}
	}
}

func TestImpossibleAppArmorProfilesAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		asked        *confinement
		field, value string
	}{
		"no name":         {&confinement{Apparmor: structured(localhost, "")}, securityField + "apparmor.localhost_ref", ""},
		"only the prefix": {&confinement{Apparmor: structured(localhost, "localhost/")}, securityField + "apparmor.localhost_ref", "localhost/"},
		"kind":            {&confinement{Apparmor: structured(7, "")}, securityField + "apparmor.profile_type", "7"},
		// Each of these the kernel would take, and confine less or nothing.
		"confined by nothing": {&confinement{Apparmor: structured(localhost, "unconfined")}, securityField + "apparmor.localhost_ref", "unconfined"},
		"another namespace":   {&confinement{Apparmor: structured(localhost, "localhost/:root://unconfined")}, securityField + "apparmor.localhost_ref", ":root://unconfined"},
		"a stack":             {&confinement{ApparmorProfile: "localhost/a//&unconfined"}, securityField + "apparmor_profile", "a//&unconfined"},
		"a second line":       {&confinement{ApparmorProfile: "localhost/a\nexec b"}, securityField + "apparmor_profile", "a\\nexec b"},
		"a blank at the end":  {&confinement{ApparmorProfile: "localhost/a "}, securityField + "apparmor_profile", "a "},
		"too long":            {&confinement{ApparmorProfile: strings.Repeat("a", 513)}, securityField + "apparmor_profile", "aaaa"},
	} {
		_, err := AppArmorProfile(c.asked)
		t.Run(name, func(t *testing.T) { refused(t, err, c.field, c.value) })
	}
}
