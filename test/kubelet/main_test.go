package kubelet

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"cri-mini/internal/enclosure"
)

// kubeletBinary is where hack/kubelet puts it.
const kubeletBinary = "../../.cache/bin/kubelet"

func TestMain(m *testing.M) {
	if err := needKubelet(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	enclosure.Main(m, "./cmd/cri-mini", "./test/kubelet/health")
}

// needKubelet builds the kubelet when it was not built before: minutes the
// first time.
func needKubelet() error {
	if _, err := os.Stat(kubeletBinary); err == nil || enclosure.Entered() {
		return nil
	}
	build := exec.Command("../../hack/kubelet")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("hack/kubelet: %w", err)
	}
	return nil
}
