package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"cri-mini/internal/testregistry"
)

// canary is a secret that must not be seen anywhere.
const canary = "canary/s3cr3t+word"

func secrets() []string {
	return []string{canary, url.QueryEscape(canary), base64.StdEncoding.EncodeToString([]byte("alice:" + canary)), base64.StdEncoding.EncodeToString([]byte(canary))}
}

func TestLogins(t *testing.T) {
	basic := testregistry.Options{TLS: true, Username: "alice", Password: canary}
	token := basic
	token.Token = true
	token.IdentityToken = "identity-" + canary
	plain := token
	plain.TLS = false
	both := base64.StdEncoding.EncodeToString([]byte("alice:" + canary))
	for name, test := range map[string]struct {
		o    testregistry.Options
		auth *Auth
		want string // part of the error; empty: success
	}{
		"basic":               {basic, &Auth{Username: "alice", Password: canary}, ""},
		"basic, auth field":   {basic, &Auth{Auth: both}, ""},
		"basic, none":         {basic, nil, "wants a username and password"},
		"basic, wrong":        {basic, &Auth{Username: "alice", Password: canary + "x"}, "401"},
		"token":               {token, &Auth{Username: "alice", Password: canary}, ""},
		"token, plain":        {plain, &Auth{Username: "alice", Password: canary}, ""},
		"token, none":         {token, nil, "token server"},
		"token, wrong":        {token, &Auth{Username: "alice", Password: canary + "x"}, "token server"},
		"identity token":      {token, &Auth{IdentityToken: "identity-" + canary}, ""},
		"identity, wrong":     {token, &Auth{IdentityToken: "other-" + canary}, "token server"},
		"registry token":      {token, &Auth{RegistryToken: "registry-" + canary}, ""},
		"registry, wrong":     {token, &Auth{RegistryToken: "other-" + canary}, "401"},
		"other server":        {basic, &Auth{Username: "alice", Password: canary, ServerAddress: "https://other.test/v1/"}, "wants a username and password"},
		"auth is not base64":  {basic, &Auth{Auth: canary + "%"}, "auth is not base64"},
		"auth without colon":  {basic, &Auth{Auth: base64.StdEncoding.EncodeToString([]byte(canary))}, "auth is not base64 of username:password"},
		"bad server_address":  {basic, &Auth{Username: "alice", Password: canary, ServerAddress: "a b"}, "server_address"},
		"realm not https":     {withRealm(token, "http://token.test/token"), &Auth{Username: "alice", Password: canary}, "is not https"},
		"realm is junk":       {withRealm(token, "::"), &Auth{Username: "alice", Password: canary}, "is not a URL"},
		"realm with userinfo": {withRealm(token, "https://x:"+canary+"@token.test/"), &Auth{Username: "alice", Password: canary}, "is not a URL"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, test.o)
			f.r.Push("app", "1", simple())
			f.r.AddToken("registry-" + canary)
			n := f.openName(f.r.Host()+"/app:1", nil).Name()
			repo, err := f.client.Repository(n, test.auth)
			if err == nil {
				defer repo.Close()
				_, _, err = fetchAll(t.Context(), repo)
			}
			if test.want == "" && err != nil {
				t.Fatalf("pull: %v", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("pull = %v, want an error with %q", err, test.want)
			}
			if test.want == "401" && !errors.Is(err, ErrUnauthorized) {
				t.Errorf("%v is not ErrUnauthorized", err)
			}
			for _, s := range secrets() {
				if strings.Contains(fmt.Sprintf("%v %+v", err, err), s) || strings.Contains(f.log.String(), s) {
					t.Errorf("the secret is in the error or in the log:\n%v\n%s", err, f.log)
				}
			}
		})
	}
}

func withRealm(o testregistry.Options, realm string) testregistry.Options {
	o.Realm = realm
	return o
}

func TestExpiredTokenIsRenewedWithoutNotice(t *testing.T) {
	f := newFixture(t, testregistry.Options{TLS: true, Username: "alice", Password: canary, Token: true})
	f.r.Push("app", "1", simple())
	repo := f.open("app:1", &Auth{Username: "alice", Password: canary})
	for range 3 {
		if _, _, err := fetchAll(t.Context(), repo); err != nil {
			t.Fatal(err)
		}
		f.r.ExpireTokens()
	}
	if n := f.r.Count("/token"); n != 3 {
		t.Fatalf("%d tokens were asked for, want 3", n)
	}
}

// TestSecretsStayWithTheirHost holds that a redirect, to another host or only
// to another port, is followed without credentials and without the operator's
// headers.
func TestSecretsStayWithTheirHost(t *testing.T) {
	for _, o := range []testregistry.Options{
		{Username: "alice", Password: canary},
		{Username: "alice", Password: canary, Token: true},
	} {
		f := newFixture(t, o)
		storage := testregistry.New(testregistry.Options{})
		t.Cleanup(storage.Close)
		img := simple()
		f.r.Push("app", "1", img)
		storage.Push("app", "1", img)
		f.r.Fault(testregistry.Fault{Path: "/blobs/", Redirect: storage.URL(), Auth: true})
		f.hosts(f.r.Host(), fmt.Sprintf("server = %q\n[header]\nX-Key = %q\n", f.r.URL(), canary))
		if _, _, err := fetchAll(t.Context(), f.open("app:1", &Auth{Username: "alice", Password: canary})); err != nil {
			t.Fatal(err)
		}
		if len(storage.Requests()) == 0 {
			t.Fatal("no redirect was followed")
		}
		for _, q := range storage.Requests() {
			if q.Authorization != "" || q.Header.Get("X-Key") != "" {
				t.Errorf("%s was sent %q and %q", q.Host, q.Authorization, q.Header.Get("X-Key"))
			}
		}
		for _, q := range f.r.Requests() {
			if strings.HasPrefix(q.Path, "/v2/") && q.Header.Get("X-Key") != canary {
				t.Errorf("%s did not get the operator's header", q.Path)
			}
		}
	}
}

// TestRedirectedHostCannotAskForThePassword holds that storage which a registry
// redirects to cannot name a token server of its own.
func TestRedirectedHostCannotAskForThePassword(t *testing.T) {
	for _, token := range []bool{false, true} {
		f := newFixture(t, testregistry.Options{Username: "alice", Password: canary, Token: token})
		thief := testregistry.New(testregistry.Options{Username: "x", Password: "y", Token: token})
		t.Cleanup(thief.Close)
		f.r.Push("app", "1", simple())
		f.r.Fault(testregistry.Fault{Path: "/blobs/", Redirect: thief.URL(), Auth: true})
		_, _, err := fetchAll(t.Context(), f.open("app:1", &Auth{Username: "alice", Password: canary}))
		if !errors.Is(err, ErrUnauthorized) {
			t.Fatalf("pull = %v, want ErrUnauthorized", err)
		}
		for _, q := range thief.Requests() {
			if q.Authorization != "" {
				t.Fatalf("token=%v: the other host was sent %q at %s", token, q.Authorization, q.Path)
			}
		}
	}
}

func TestMirrorDoesNotGetTheRegistrysPassword(t *testing.T) {
	f := newFixture(t, testregistry.Options{Username: "alice", Password: canary})
	img := simple()
	f.r.Push("app", "1", img)
	mirror := testregistry.New(testregistry.Options{Username: "bob", Password: "other"})
	t.Cleanup(mirror.Close)
	mirror.Push("app", "1", img)
	f.hosts("registry.test", fmt.Sprintf("server = %q\n[host.%q]\n", f.r.URL(), mirror.URL()))
	if _, _, err := fetchAll(t.Context(), f.openName("registry.test/app:1", &Auth{Username: "alice", Password: canary})); err != nil {
		t.Fatal(err)
	}
	for _, q := range mirror.Requests() {
		if q.Authorization != "" {
			t.Fatalf("the mirror was sent %q", q.Authorization)
		}
	}
	// Unless the caller says that it is the mirror's.
	if _, _, err := fetchAll(t.Context(), f.openName("registry.test/app:1", &Auth{Username: "bob", Password: "other", ServerAddress: mirror.Host()})); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultStandInDoesNotGetPasswords(t *testing.T) {
	f := newFixture(t, testregistry.Options{Username: "alice", Password: canary})
	f.r.Push("app", "1", simple())
	f.hosts("_default", fmt.Sprintf("server = %q\n", f.r.URL()))
	_, err := f.openName("registry.test/app:1", &Auth{Username: "alice", Password: canary}).Resolve(t.Context(), platform)
	if !errors.Is(err, ErrUnauthorized) {
		t.Fatalf("pull = %v, want ErrUnauthorized", err)
	}
	for _, q := range f.r.Requests() {
		if q.Authorization != "" {
			t.Fatalf("it was sent %q", q.Authorization)
		}
	}
}

func TestRealmOnThisMachineIsRefused(t *testing.T) {
	a := &authorizer{}
	asked := &url.URL{Scheme: "https", Host: "registry.test"}
	for realm, good := range map[string]bool{
		"https://token.test/t": true, "https://registry.test:8443/": true, "https://10.0.0.1/": true,
		"https://127.0.0.1/": false, "https://localhost:1/": false, "https://169.254.169.254/latest": false, "https://[fe80::1]/": false,
		"https://0.0.0.0/": false, "http://token.test": false, "file:///etc/passwd": false, "": false,
	} {
		if _, err := a.realm(realm, asked); (err == nil) != good {
			t.Errorf("realm %q: %v, want allowed %v", realm, err, good)
		}
	}
}

func TestChallenges(t *testing.T) {
	for in, want := range map[string][]challenge{
		`Bearer realm="https://a.test/t",service="s s",scope="a:b:c,d"`: {{"bearer", map[string]string{"realm": "https://a.test/t", "service": "s s", "scope": "a:b:c,d"}}},
		`Basic realm="x", Bearer realm=y`:                               {{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y"}}},
		`BASIC`:                                                         {{"basic", map[string]string{}}},
		`Bearer realm="a\"b"`:                                           {{"bearer", map[string]string{"realm": `a"b`}}},
		`Bearer realm="a",realm="b"`:                                    {{"bearer", map[string]string{"realm": "a"}}},
		`Bearer realm="open`:                                            {{"bearer", map[string]string{}}},
		`realm="x"`:                                                     nil,
		``:                                                              nil,
	} {
		if got := parseChallenges([]string{in}); !reflect.DeepEqual(got, want) {
			t.Errorf("parseChallenges(%s) = %v, want %v", in, got, want)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{`Bearer realm="a",b=c`, `a b c = d`, `"`, `Basic, Bearer x="\`, "a=", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges([]string{s}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Fatalf("%q: scheme %q", s, c.scheme)
			}
		}
	})
}

func TestRedactorKnowsAllForms(t *testing.T) {
	r := newRedactor(credentials{username: "alice", password: canary, identityToken: "id-token", registryToken: "reg-token"})
	r.addHeaders(http.Header{"Authorization": {"Basic aGVhZGVy"}})
	text := strings.Join(append(secrets(), "id-token", "reg-token", "aGVhZGVy"), " ")
	err := &url.Error{Op: "Get", URL: "https://s.test/b?X-Signature=sssss", Err: errors.New(text)}
	got := r.error(fmt.Errorf("fetch: %w", err)).Error()
	for _, s := range append(secrets(), "id-token", "reg-token", "aGVhZGVy", "Signature", "sssss") {
		if strings.Contains(got, s) {
			t.Errorf("%q is left in %q", s, got)
		}
	}
	if !strings.Contains(got, "s.test") {
		t.Errorf("%q does not name the host", got)
	}
}
