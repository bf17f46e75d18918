package critest

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	_ "unsafe" // for go:linkname

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	"sigs.k8s.io/cri-tools/pkg/framework"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)

// digestVariable carries the digest of our own test-image-digest. The one that
// upstream wrote down names bytes that nobody can build again.
const digestVariable = "CRITEST_IMAGE_DIGEST"

//go:linkname testImageWithDigest sigs.k8s.io/cri-tools/pkg/validate.testImageWithDigest
var testImageWithDigest string

func init() { framework.RegisterFlags() } // before the test binary parses its flags

// Upstream fills its image names in a callback of its own, which ran before
// this one: callbacks keep the order of package initialisation.
var _ = framework.AddBeforeSuiteCallback(func() {
	if digest := os.Getenv(digestVariable); digest != "" {
		repository, _, _ := strings.Cut(testImageWithDigest, "@")
		testImageWithDigest = repository + "@" + digest
	}
})

// TestMain leaves the suite out unless it is told, by -runtime-endpoint, where a
// runtime listens. The program in ./run tells it.
func TestMain(m *testing.M) {
	flag.Parse()
	suite, _ := ginkgo.GinkgoConfiguration()
	if framework.TestContext.RuntimeServiceAddr == framework.ContainerdSockPathUnix && !suite.DryRun {
		_ = flag.Set("test.skip", "^TestCRI$") // the testing package has this flag
	}
	os.Exit(m.Run())
}

// TestCRI is the upstream suite.
func TestCRI(t *testing.T) {
	suite, reporter := ginkgo.GinkgoConfiguration()
	if flag.Lookup("ginkgo.focus").Value.String() == "" {
		suite.SkipStrings = append(suite.SkipStrings, "benchmark")
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	ginkgo.RunSpecs(t, "CRI validation", suite, reporter)
}

// A new version of the suite must not lose specs without anybody noticing.
func TestTheSuiteHas117SpecsWithoutBenchmarks(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.json")
	out, err := exec.Command(self, "-test.run=^TestCRI$", "-ginkgo.dry-run", "-ginkgo.json-report="+report).CombinedOutput()
	if err != nil {
		t.Fatalf("dry run: %v\n%s", err, out)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var reports []types.Report
	if err := json.Unmarshal(text, &reports); err != nil {
		t.Fatal(err)
	}
	want := 117
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		want += 17 // which the suite does not even name without SELinux
	}
	if got := reports[0].PreRunStats.SpecsThatWillRun; got != want {
		t.Errorf("the suite would run %d specs, want %d", got, want)
	}
}
