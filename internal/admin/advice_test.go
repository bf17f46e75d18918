package admin

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"cri-mini/image/registry"
)

func TestPullHintNamesTheFileToWrite(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{registry.ErrUnknownCA, "put the certificate of its authority into /certs/registry.test:5000/ca.crt"},
		{http.ErrSchemeMismatch, `it speaks plain HTTP; to allow that, write server = "http://registry.test:5000" into /certs/registry.test:5000/hosts.toml`},
		{errors.New("no such host"), ""},
	} {
		if got := pullHint(fmt.Errorf("pull: %w", c.err), "registry.test:5000/x", "/certs"); got != c.want {
			t.Errorf("%v: hint %q, want %q", c.err, got, c.want)
		}
	}
}
