package registry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cri-mini/image/reference"
	"cri-mini/internal/testregistry"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func TestHostsFileFullForm(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "registry.test", "hosts.toml")
	hosts, err := parseHostsFile(file, []byte(`
server = "https://registry.test"
capabilities = ["pull", "resolve", "push"]
dial_timeout = "3s"

[host."https://z.test/us"]
  capabilities = ["pull"]
  ca = "z.crt"
  client = "both.pem"
  [host."https://z.test/us".header]
    x-one = "1"
    x-two = ["a", "b"]

[host."http://a.test:5000"]
  ca = ["/etc/a.crt", "b.crt"]
  client = [["a.cert", "a.key"], ["c.pem", ""]]
  skip_verify = true
  proxy = "http://proxy.test:8080"

[host."m.test/v2/up"]
  override_path = true
[host."n.test/v2"]
[host]
"inline.test" = { capabilities = ["resolve"] }
`), "registry.test")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range hosts {
		got = append(got, fmt.Sprintf("%s pull=%v resolve=%v ca=%v client=%v skip=%v header=%v timeout=%v proxy=%v own=%v",
			h.url, h.pull, h.resolve, h.ca, h.clientCerts, h.skipVerify, h.header, h.dialTimeout, h.proxy, h.own))
	}
	d := filepath.Dir(file)
	want := []string{
		"https://z.test/us/v2 pull=true resolve=false ca=[" + d + "/z.crt] client=[[" + d + "/both.pem ]] skip=false header=map[X-One:[1] X-Two:[a b]] timeout=0s proxy=<nil> own=false",
		"http://a.test:5000/v2 pull=true resolve=true ca=[/etc/a.crt " + d + "/b.crt] client=[[" + d + "/a.cert " + d + "/a.key] [" + d + "/c.pem ]] skip=true header=map[] timeout=0s proxy=http://proxy.test:8080 own=false",
		"https://m.test/v2/up pull=true resolve=true ca=[] client=[] skip=false header=map[] timeout=0s proxy=<nil> own=false",
		"https://n.test/v2 pull=true resolve=true ca=[] client=[] skip=false header=map[] timeout=0s proxy=<nil> own=false",
		"https://inline.test/v2 pull=false resolve=true ca=[] client=[] skip=false header=map[] timeout=0s proxy=<nil> own=false",
		"https://registry.test/v2 pull=true resolve=true ca=[] client=[] skip=false header=map[] timeout=3s proxy=<nil> own=true",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHostsFileErrorsNameFileAndLine(t *testing.T) {
	for text, want := range map[string]string{
		"server = \"https://a.test\"\nsevrer = 1\n":                 ":2: unknown key \"sevrer\"",
		"\n[host.\"https://a.test\"]\n  capabilites = [\"pull\"]\n": ":3: unknown key",
		"[host.\"https://a.test\"]\n  capabilities = [\"pul\"]\n":   ":2: capability \"pul\" is not one of",
		"server = 3\n":                                                                      ":1:",
		"server = \"ftp://a.test\"\n":                                                       ":1: host \"ftp://a.test\" is not",
		"\n\n[host.\"https://u:p@a.test\"]\n":                                               ":3: host \"https://u:xxxxx@a.test\" has more",
		"[host.\"https://a.test\"]\nca = 3\n":                                               ":2: ca: 3 is not a path",
		"[host.\"https://a.test\"]\nca = [\"\"]\n":                                          ":2: ca:",
		"[host.\"https://a.test\"]\nclient = [[\"a\"]]\n":                                   ":2: client:",
		"[host.\"https://a.test\"]\ndial_timeout = \"soon\"\n":                              ":2: dial_timeout \"soon\" is not",
		"[host.\"https://a.test\"]\nproxy = \"gopher://p\"\n":                               ":2: proxy",
		"[host.\"https://a.test\"]\n[host.\"https://a.test\".header]\n\"a b\" = \"s3cret\"": ":2: header \"a b\" is not a valid name",
		"[host.\"https://a.test\"\n":                                                        ":1:",
		"\x00":                                                                              ":1:",
	} {
		_, err := parseHostsFile("/etc/x/hosts.toml", []byte(text), "registry.test")
		if err == nil || !strings.HasPrefix(err.Error(), "/etc/x/hosts.toml"+want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v; want /etc/x/hosts.toml%s...", text, err, want)
		}
	}
}

func FuzzHostsFile(f *testing.F) {
	f.Add([]byte("server = \"a\"\n[host.\"b\"]\nca = [\"x\"]\nclient=[[\"a\",\"b\"]]\nheader={a=[\"b\"]}"))
	f.Add([]byte("host.a.b.c = 1\n[[host]]\n"))
	f.Add([]byte("[host.a]\nproxy = \"http://u:p@x\"\ndial_timeout=\"-1s\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hosts, err := parseHostsFile("f", data, "registry.test")
		if err == nil && (len(hosts) == 0 || hosts[len(hosts)-1].url.Host == "") {
			t.Fatalf("%q: no last host in %v", data, hosts)
		}
	})
}

func TestHostFolderForDomain(t *testing.T) {
	config := t.TempDir()
	for _, d := range []string{"a.test:5000", "a.test_5000_", "b.test:5000", "_default"} {
		if err := os.Mkdir(filepath.Join(config, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for domain, want := range map[string]string{"a.test:5000": "a.test_5000_", "b.test:5000": "b.test:5000", "a.test": "_default"} {
		if got, err := hostDir(config, domain); err != nil || filepath.Base(got) != want {
			t.Errorf("hostDir(%s) = %s, %v; want %s", domain, got, err, want)
		}
	}
}

func TestMirrorIsAskedFirstAndIsToldTheRegistry(t *testing.T) {
	for _, folder := range []string{"registry.test:5000", "_default"} {
		f := newFixture(t, testregistry.Options{TLS: true})
		if err := f.r.Mirror(f.config, folder); err != nil {
			t.Fatal(err)
		}
		f.r.Push("team/app", "1", simple())
		if _, _, err := fetchAll(t.Context(), f.openName("registry.test:5000/team/app:1", nil)); err != nil {
			t.Fatal(err)
		}
		for _, q := range f.r.Requests() {
			if q.Query != "ns=registry.test%3A5000" {
				t.Errorf("%s: %s?%s does not name the registry", folder, q.Path, q.Query)
			}
		}
	}
}

func TestConfigurationIsReadAtEachPull(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", simple())
	name := f.open("app:1", nil).Name()
	f.hosts("_default", "sever = 1") // which the fixture's host falls under, too
	if _, err := f.client.Repository(name, nil); err == nil || !strings.Contains(err.Error(), "hosts.toml:1: unknown key") {
		t.Fatalf("with a bad file: %v", err)
	}
	f.hosts("_default", "")
	if _, _, err := fetchAll(t.Context(), f.open("app:1", nil)); err != nil {
		t.Fatal(err)
	}
}

func TestAllHostsAreTriedAndNamed(t *testing.T) {
	first := testregistry.New(testregistry.Options{})
	t.Cleanup(first.Close)
	dead := testregistry.New(testregistry.Options{})
	dead.Close()
	f := newFixture(t, testregistry.Options{TLS: true})
	text := fmt.Sprintf("server = %q\nskip_verify = true\n[host.%q]\n[host.%q]\n", f.r.URL(), first.URL(), dead.URL())
	f.hosts("registry.test", text)

	_, err := f.openName("registry.test/app:1", nil).Resolve(t.Context(), platform)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("pull = %v, want ErrNotFound: the registry itself says so", err)
	}
	for _, want := range []string{first.Host() + ": 404", dead.Host() + ": dial tcp", f.r.Host() + ": 404", "registry.test/app:1"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("error %q does not have %q", err, want)
		}
	}

	f.r.Push("app", "1", simple())
	start := time.Now()
	if _, _, err := fetchAll(t.Context(), f.openName("registry.test/app:1", nil)); err != nil || time.Since(start) > 3*time.Second {
		t.Fatalf("with the last host good: %v after %v", err, time.Since(start))
	}
}

func TestCorruptMirrorIsPassedOver(t *testing.T) {
	mirror := testregistry.New(testregistry.Options{})
	t.Cleanup(mirror.Close)
	f := newFixture(t, testregistry.Options{})
	img := simple()
	pushed := f.r.Push("app", "1", img)
	mirror.Push("app", "1", img)
	f.hosts("registry.test", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", f.r.URL(), mirror.URL()))
	mirror.Fault(testregistry.Fault{Flip: true})
	if _, layers, err := fetchAll(t.Context(), f.openName("registry.test/app:1", nil)); err != nil || len(layers[0]) == 0 {
		t.Fatalf("pull past a corrupt mirror: %v", err)
	}
	if mirror.Count(pushed.Layers[0].String()) == 0 {
		t.Fatal("the mirror was not even asked for the layer")
	}
	for _, q := range mirror.Requests() {
		if strings.HasSuffix(q.Path, "manifests/1") {
			t.Fatal("a mirror without \"resolve\" was asked for a tag")
		}
	}
}

func TestResolveOnlyHostGivesTheDigest(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	content := testregistry.New(testregistry.Options{})
	t.Cleanup(content.Close)
	img := simple()
	f.r.Push("app", "1", img)
	content.Push("app", "other", img)
	f.hosts("registry.test", fmt.Sprintf("server = %q\ncapabilities = [\"pull\"]\n[host.%q]\ncapabilities = [\"resolve\"]\n", content.URL(), f.r.URL()))
	if _, _, err := fetchAll(t.Context(), f.openName("registry.test/app:1", nil)); err != nil {
		t.Fatal(err)
	}
	if n := len(f.r.Requests()); n != 1 {
		t.Fatalf("the resolving host got %d requests, want 1", n)
	}
}

func TestPlainHTTPOnlyWhereAllowed(t *testing.T) {
	if h := defaultHost("registry.test"); h.url.Scheme != "https" || h.plainIfNeeded {
		t.Errorf("registry.test: %v, plain allowed %v", h.url, h.plainIfNeeded)
	}
	for domain, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.9.8.7": true, "[::1]:5000": true, "[::1]": true,
		"10.0.0.1:5000": false, "localhost.test": false, "127.0.0.1.test": false, "registry.test:80": false, "[::2]": false,
	} {
		if got := isLoopback(domain); got != want {
			t.Errorf("isLoopback(%s) = %v, want %v", domain, got, want)
		}
	}
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", simple())
	f.hosts("registry.test", fmt.Sprintf("server = %q\n", strings.Replace(f.r.URL(), "http:", "https:", 1)))
	if _, err := f.openName("registry.test/app:1", nil).Resolve(t.Context(), platform); err == nil {
		t.Fatal("https:// in the hosts file fell back to plain HTTP")
	}
	f.hosts("registry.test", fmt.Sprintf("server = %q\n", f.r.URL()))
	if _, err := f.openName("registry.test/app:1", nil).Resolve(t.Context(), platform); err != nil {
		t.Fatal(err)
	}
}

func TestClientCertificates(t *testing.T) {
	f := newFixture(t, testregistry.Options{TLS: true, ClientCert: true})
	f.r.Push("app", "1", simple())
	dir := filepath.Join(f.config, f.r.Host())
	cert, key := selfSigned(t)
	write := func(name string, parts ...[]byte) {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Join(parts, nil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pull := func() error {
		name := f.name("app:1")
		repo, err := f.client.Repository(name, nil)
		if err != nil {
			return err
		}
		defer repo.Close()
		_, err = repo.Resolve(t.Context(), platform)
		return err
	}
	if err := pull(); err == nil {
		t.Error("without a certificate: it was served")
	}
	write("me.cert", cert)
	if err := pull(); err == nil || !strings.Contains(err.Error(), "me.key") {
		t.Errorf("without the key: %v, want an error that names me.key", err)
	}
	write("me.key", key)
	if err := pull(); err != nil {
		t.Errorf("with me.cert and me.key: %v", err)
	}
	os.Remove(filepath.Join(dir, "me.cert"))
	write("both.pem", cert, key)
	ca, err := f.r.CAFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f.hosts(f.r.Host(), fmt.Sprintf("client = \"both.pem\"\nca = %q\n", ca))
	if err := pull(); err != nil {
		t.Errorf("with client and ca in the hosts file: %v", err)
	}
	f.hosts(f.r.Host(), "ca = \"none.crt\"\n")
	if err := pull(); err == nil || !strings.Contains(err.Error(), "none.crt") {
		t.Errorf("with a missing ca: %v, want an error that names none.crt", err)
	}
	write("junk.crt", []byte("junk"))
	f.hosts(f.r.Host(), "ca = \"junk.crt\"\n")
	if err := pull(); err == nil || !strings.Contains(err.Error(), "junk.crt") {
		t.Errorf("with a ca that is none: %v, want an error that names junk.crt", err)
	}
}

// selfSigned makes a certificate and its key, in PEM.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func TestProxyOfAHostIsUsed(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", simple())
	f.hosts("registry.test", fmt.Sprintf("server = \"http://registry.test\"\nproxy = %q\n", f.r.URL()))
	if _, _, err := fetchAll(t.Context(), f.openName("registry.test/app:1", nil)); err != nil {
		t.Fatal(err)
	}
	if q := f.r.Requests()[0]; q.Host != "registry.test" {
		t.Fatalf("the proxy was asked for host %q", q.Host)
	}
}

func TestDialTimeoutMakesADeadMirrorCheap(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", simple())
	// Nobody answers here: the backlog of a listener that accepts nothing is full.
	full, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	raw, err := full.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := net.DialTimeout("tcp", full.Addr().String(), 100*time.Millisecond)
		if err != nil {
			break // full
		}
		defer c.Close()
	}
	f.hosts("registry.test", fmt.Sprintf("server = %q\n[host.\"http://%s\"]\ndial_timeout = \"100ms\"\n", f.r.URL(), full.Addr()))
	start := time.Now()
	if _, _, err := fetchAll(t.Context(), f.openName("registry.test/app:1", nil)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 100*time.Millisecond || d > 3*time.Second {
		t.Fatalf("it took %v, want one dial_timeout of 100ms: a mirror that did not answer is asked last", d)
	}
}

func TestSHA512Digests(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", simple())
	resolved, layers, err := fetchAll(t.Context(), f.open("app:1", nil))
	if err != nil {
		t.Fatal(err)
	}
	m := resolved.Manifest
	m.Layers[0].Digest = digest.SHA512.FromBytes(layers[0])
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	f.r.PutManifest("app", "2", m.MediaType, data)
	want := digest.SHA512.FromBytes(data)
	if got, _, err := fetchAll(t.Context(), f.open("app@"+want.String(), nil)); err != nil || got.Digest != want {
		t.Fatalf("pull by sha512 = %s, %v", got.Digest, err)
	}
	f.r.Fault(testregistry.Fault{Path: "sha512:", Flip: true})
	if _, _, err := fetchAll(t.Context(), f.open("app:2", nil)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("with a flipped byte: %v", err)
	}
}

// TestWhoseHostItIs matters because only the registry's own hosts get its
// password. Operators often list the registry itself among the hosts.
func TestWhoseHostItIs(t *testing.T) {
	bare, err := reference.Parse("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		folder, domain, text string
		want                 []bool
	}{
		{"registry.test", "registry.test", `[host."https://mirror.test"]` + "\n" + `[host."https://registry.test"]`, []bool{false, true, true}},
		{"registry.test", "registry.test", `server = "https://inside.test"`, []bool{true}},
		{"_default", "registry.test", `server = "https://inside.test"`, []bool{false}},
		{"_default", "registry.test", `[host."https://mirror.test"]`, []bool{false, true}},
		{"_default", "registry.test", `server = "https://registry.test"`, []bool{true}},
		{bare.Domain, bare.Domain, fmt.Sprintf("[host.%q]", "https://"+apiHost(bare.Domain)), []bool{true, true}},
	} {
		hosts, err := parseHostsFile("/etc/x/"+test.folder+"/hosts.toml", []byte(test.text), test.domain)
		var got []bool
		for _, h := range hosts {
			got = append(got, h.own)
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s in %s for %s: own %v, %v; want %v", test.text, test.folder, test.domain, got, err, test.want)
		}
	}
}
