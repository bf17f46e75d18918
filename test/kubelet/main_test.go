package kubelet

import (
	"testing"

	"cri-mini/internal/enclosure"
)

func TestMain(m *testing.M) { enclosure.Main(m, "./cmd/cri-mini", "./test/kubelet/health") }
