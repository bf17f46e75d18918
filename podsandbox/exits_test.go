package podsandbox

import (
	"testing"

	"cri-mini/runtime/spec"
)

func TestReasonOfAnExitIsTheOneThatKubernetesKnows(t *testing.T) {
	for want, x := range map[string]spec.Exit{
		"Completed": {}, "Error": {Code: 3}, "OOMKilled": {Code: 137, OOMKilled: true}, "Unknown": {Code: 3, Unknown: true},
	} {
		if e := ending(x); e.Reason != want || x.Unknown && (e.Code != 255 || e.Message == "") {
			t.Errorf("%+v: %+v, want the reason %s", x, e, want)
		}
	}
	if e := ending(spec.Exit{Unknown: true, OOMKilled: true}); e.Reason != "OOMKilled" || e.Code != 255 || e.Message == "" {
		t.Errorf("killed for lack of memory while nobody looked: %+v", e)
	}
}
