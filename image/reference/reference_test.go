package reference

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

const (
	hex64    = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	sum      = "sha256:" + hex64
	sum512   = "sha512:" + hex64 + hex64
	test     = "registry.test:5000/a/b"
	upperHex = "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"
)

func TestParseCompletesNames(t *testing.T) {
	for in, want := range map[string]string{
		test:                          test + ":latest",
		test + ":1.2":                 test + ":1.2",
		test + "@" + sum:              test + "@" + sum,
		test + "@" + sum512:           test + "@" + sum512,
		test + ":1.2@" + sum:          test + "@" + sum,
		"localhost/x":                 "localhost/x:latest",
		"127.0.0.1:5000/x:1":          "127.0.0.1:5000/x:1",
		"[::1]:5000/x:1":              "[::1]:5000/x:1",
		"registry.test/x__y--z.w:A_b": "registry.test/x__y--z.w:A_b",
	} {
		n, err := Parse(in)
		if err != nil || n.String() != want {
			t.Errorf("Parse(%q) = %v, %v; want %v", in, n, err, want)
		}
	}
}

func TestParseGivesBareNamesTheDefaultRegistry(t *testing.T) {
	bare, err := Parse("busybox")
	if err != nil || bare.Domain == "" || bare.Path != "library/busybox" || bare.Tag != "latest" {
		t.Fatalf("Parse(busybox) = %+v, %v", bare, err)
	}
	full, err := Parse(bare.String())
	if err != nil || full != bare {
		t.Fatalf("Parse(%q) = %+v, %v; want %+v", bare, full, err, bare)
	}
}

func TestParseRefusesAndNamesTheValue(t *testing.T) {
	for _, in := range []string{
		"", " ", "registry.test/", "registry.test/UPPER", "registry.test/x:", "registry.test/x:bad tag",
		"registry.test/x@sha256:123", "registry.test/x@md5:" + hex64[:32], "registry.test/x@" + sum + "0",
		"registry.test/x@sha256:" + upperHex, "registry.test/../x", "-registry.test/x", "registry.test/x:" + strings.Repeat("t", 129),
		"https://registry.test/x", "registry.test/\u0430", "registry.test/x\n", hex64, sum,
		"reg_istry.test/x", "reg_istry.test/x:1@" + sum,
		"registry.test/x@sha384:" + hex64 + hex64[:32], "registry.test/" + strings.Repeat("x", 300),
	} {
		n, err := Parse(in)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("Parse(%q) = %v, %v; want ErrInvalid", in, n, err)
		} else if !strings.Contains(err.Error(), strings.Trim(strconvQuote(in), `"`)) {
			t.Errorf("Parse(%q) = %v, which does not name the value", in, err)
		}
	}
	if _, err := Parse(strings.Repeat("x", 1<<20)); !errors.Is(err, ErrInvalid) || len(err.Error()) > 300 {
		t.Errorf("a name of 1 MiB: %v", err)
	}
}

func strconvQuote(s string) string {
	if len(s) > 20 {
		s = s[:20]
	}
	return strings.ReplaceAll(s, "\n", `\n`)
}

func TestIDs(t *testing.T) {
	for in, want := range map[string]string{hex64: sum, sum: sum, "0011": "", "sha256:0011": "", upperHex: ""} {
		if got, ok := FullID(in); string(got) != want || ok != (want != "") {
			t.Errorf("FullID(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
	for in, want := range map[string]string{hex64: sum, "0011": "sha256:0011", "sha256:0a": "sha256:0a", "busybox": "", "": "", "sha256:": ""} {
		if got, ok := IDPrefix(in); got != want || ok != (want != "") {
			t.Errorf("IDPrefix(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}

func TestDomainReadsCredentialAddresses(t *testing.T) {
	bare, err := Parse("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"registry.test":                      "registry.test",
		"https://registry.test:5000/v1/":     "registry.test:5000",
		"http://localhost":                   "localhost",
		"127.0.0.1:5000":                     "127.0.0.1:5000",
		"https://index." + bare.Domain + "/": bare.Domain,
		"mirror":                             "mirror",
	} {
		if got, err := Domain(in); err != nil || got != want {
			t.Errorf("Domain(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if _, err := Domain("https://bad host/"); err == nil || !strings.Contains(err.Error(), "bad host") {
		t.Errorf("a bad address gave %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"busybox", test, test + ":1@" + sum, hex64, "a@b@c", "[::1]:1/x", "x:1:2", "registry.test/x@" + sum512, "\x00", "a//b", "é/x",
		"localhost:65536/x", "sha256:00", strings.Repeat("a/", 200),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		FullID(s)
		IDPrefix(s)
		Domain(s)
		n, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Parse(%q): %v is not ErrInvalid", s, err)
			}
			return
		}
		checkGrammar(t, n)
		if d, err := Domain(n.Domain); err != nil || d != n.Domain {
			t.Fatalf("Domain(%q) = %q, %v", n.Domain, d, err)
		}
		other := n.WithDigest(sum)
		if again, err := Parse(other.String()); err != nil || again != other || again.Repository() != n.Repository() {
			t.Fatalf("%v with a digest is %v, but reads again as %v, %v", n, other, again, err)
		}
		if again, err := Parse(n.String()); err != nil || again != n {
			t.Fatalf("Parse(%q) = %v, but reads again as %v, %v", s, n, again, err)
		}
	})
}

// The grammar of names as the specification of registries has it. A name goes
// into addresses and paths, so nothing else may come through.
var (
	domainForm = regexp.MustCompile(`^([A-Za-z0-9]+(-+[A-Za-z0-9]+)*(\.[A-Za-z0-9]+(-+[A-Za-z0-9]+)*)*|\[[0-9a-fA-F:]+\])(:[0-9]+)?$`)
	pathForm   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestForm = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
)

func checkGrammar(t *testing.T, n Name) {
	t.Helper()
	if !domainForm.MatchString(n.Domain) || !pathForm.MatchString(n.Path) || len(n.Path) > 255 {
		t.Fatalf("%+v: no domain or no path", n)
	}
	if (n.Tag == "") == (n.Digest == "") || n.Tag != "" && !tagForm.MatchString(n.Tag) || n.Digest != "" && !digestForm.MatchString(string(n.Digest)) {
		t.Fatalf("%+v: neither one tag nor one digest", n)
	}
}

// Whatever the grammar allows is read as the parts it was made of.
func FuzzParts(f *testing.F) {
	f.Add("registry.test:5000", "a/b", "1.2")
	f.Add("127.0.0.1", "x__y--z.w", "A_b")
	f.Add("[::1]:5000", "library/x", "latest")
	f.Add("localhost", "a", "_")
	bare, err := Parse("busybox")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, domain, path, tag string) {
		// A first part without these is a folder in the default registry, which
		// has other names and folders of its own.
		isDomain := strings.ContainsAny(domain, ".:") || domain == "localhost" || strings.ToLower(domain) != domain
		if !isDomain || strings.HasSuffix(domain, bare.Domain) || len(path) > 255 || len(domain) > 255 ||
			!domainForm.MatchString(domain) || !pathForm.MatchString(path) || !tagForm.MatchString(tag) {
			return
		}
		got, err := Parse(domain + "/" + path + ":" + tag)
		if want := (Name{Domain: domain, Path: path, Tag: tag}); err != nil || got != want {
			t.Fatalf("Parse(%s/%s:%s) = %+v, %v", domain, path, tag, got, err)
		}
	})
}
