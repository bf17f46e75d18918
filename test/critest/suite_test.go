package critest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	_ "unsafe" // for go:linkname

	"github.com/onsi/ginkgo/v2"
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

// TestCRI is the upstream suite. It needs a runtime, so it runs only when told
// where one listens (-runtime-endpoint), as the program in ./run does.
func TestCRI(t *testing.T) {
	suite, reporter := ginkgo.GinkgoConfiguration()
	if framework.TestContext.RuntimeServiceAddr == framework.ContainerdSockPathUnix && !suite.DryRun {
		fmt.Println("no -runtime-endpoint: the suite is run by `go run ./run`")
		return
	}
	if flag.Lookup("ginkgo.focus").Value.String() == "" {
		suite.SkipStrings = append(suite.SkipStrings, "benchmark")
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	ginkgo.RunSpecs(t, "CRI validation", suite, reporter)
}
