package signalname

import (
	"syscall"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestParseAcceptsTheUsualSpellings(t *testing.T) {
	for in, want := range map[string]syscall.Signal{
		"SIGTERM": 15, "term": 15, "Sigterm": 15, "15": 15, "SIGCLD": 17,
		"SIGIOT": 6, "SIGPOLL": 29, "SIGRTMIN": 34, "RTMIN+0": 34, "SIGRTMIN+3": 37,
		"rtmin+15": 49, "SIGRTMAX-14": 50, "SIGRTMAX": 64, "SIGRTMIN+30": 64, "64": 64,
	} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestParseRefusesWhatIsNoSignal(t *testing.T) {
	for _, in := range []string{
		"", "0", "65", "-9", "+9", "SIG", "SIGSIGTERM", "SIGFOO", "SIGRTMIN-1", "SIGRTMAX+1",
		"SIGRTMIN+31", "SIGRTMIN+", "SIGRTMIN++1", "SIGRTMIN+ 1", "99999999999999999999", "TERM\n",
	} {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", in, got)
		}
	}
}

func TestNameAndParseAreInverse(t *testing.T) {
	for n := syscall.Signal(1); n <= 64; n++ {
		if got, err := Parse(Name(n)); err != nil || got != n {
			t.Errorf("Parse(Name(%d) = %q) = %d, %v", n, Name(n), got, err)
		}
	}
}

func TestEveryValueOfTheCRIIsKnownBothWays(t *testing.T) {
	alias := map[string]string{ // second names of the enum come back as the first
		"SIGNAL_SIGCLD": "SIGNAL_SIGCHLD", "SIGNAL_SIGIOT": "SIGNAL_SIGABRT", "SIGNAL_SIGPOLL": "SIGNAL_SIGIO",
	}
	for enum := range criapi.Signal_value {
		n, err := FromCRI(enum)
		if err != nil {
			t.Errorf("FromCRI(%s): %v", enum, err)
			continue
		}
		want := enum
		if first, ok := alias[enum]; ok {
			want = first
		}
		if got := CRI(n); got != want {
			t.Errorf("CRI(FromCRI(%s) = %d) = %s, want %s", enum, n, got, want)
		}
	}
	for n := syscall.Signal(1); n <= 64; n++ {
		if _, ok := criapi.Signal_value[CRI(n)]; !ok {
			t.Errorf("CRI(%d) = %s, which the CRI does not know", n, CRI(n))
		}
	}
	if got, err := FromCRI("Signal(99)"); err == nil {
		t.Errorf("FromCRI of a number without a name = %d, want an error", got)
	}
}
