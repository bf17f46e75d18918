package kubelet

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"cri-mini/internal/enclosure"
)

// kubeletBinary is where hack/kubelet puts it, or among the programs that were
// built for a machine without Go.
func kubeletBinary() string {
	if carried := enclosure.Program("kubelet"); exists(carried) {
		return carried
	}
	return "../../.cache/bin/kubelet"
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

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
	if exists(kubeletBinary()) || enclosure.Entered() {
		return nil
	}
	build := exec.Command("../../hack/kubelet")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("hack/kubelet: %w", err)
	}
	return nil
}
