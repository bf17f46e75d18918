//go:build cluster

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cri-mini/internal/enclosure"
	"cri-mini/internal/testtool"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(nodeName); name != "" {
		os.Exit(runNode(name))
	}
	enclosure.Main(m, "./cmd/cri-mini")
}

// TestClusterDoesWhatKubernetesPromises makes one cluster, shows on it one thing
// after the other, and takes it down.
func TestClusterDoesWhatKubernetesPromises(t *testing.T) {
	testtool.Need(t, "nft", "nftables")
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c, err := up(dir, func(done string) { t.Log(done) })
	if err != nil {
		if down := c.down(); down != nil {
			t.Log(down)
		}
		t.Fatal(err)
	}
	t.Logf("up after %s", time.Since(begin).Round(time.Second/10))
	for _, step := range []struct {
		name string
		run  func(*scene)
	}{
		{"BothNodesAreReady", nodesReady},
		{"DaemonSetRunsOnBothNodes", daemonSet},
		{"DeploymentIsSpreadAndItsServiceAnswersEverywhere", deployment},
		{"PodsOfBothNodesSeeEachOtherAsTheyAre", podNetwork},
		{"JobCompletesThoughItsPodsFailFirst", job},
		{"ExecAndLogs", execAndLogs},
		{"PortForward", portForward},
		{"CopyThereAndBack", copyFiles},
		{"EphemeralContainerSeesTheProcessesOfItsTarget", ephemeral},
		{"ResizeInPlace", resize},
		{"RollingUpdateLosesNoRequest", rollingUpdate},
		{"DrainMovesPodsToTheOtherNode", drain},
		{"NothingIsLeftWhenEverythingIsDeleted", deleteAll},
	} {
		t.Run(step.name, func(t *testing.T) {
			s := &scene{t: t, c: c}
			step.run(s)
			if t.Failed() {
				s.explain()
			}
		})
	}
	// A node fails that has anything left of its pods.
	if err := c.down(); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// scene is one step of a test.
type scene struct {
	t *testing.T
	c *cluster
}

// kubectl does what the user types, and fails with the test's step.
func (s *scene) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.c.kubectl(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// apply is kubectl apply with a file of this package.
func (s *scene) apply(name string) {
	s.t.Helper()
	s.kubectl("apply", "-f", filepath.Join("manifests", name+".yaml"))
}

func (s *scene) eventually(what string, check func() error) {
	s.t.Helper()
	if err := s.c.await(what, check); err != nil {
		s.t.Fatal(err)
	}
}

// onNode runs a command on a node.
func (s *scene) onNode(n *node, args ...string) (string, error) {
	line := n.enter(args...)
	return command(line[0], line[1:]...)
}

// fetch asks from a node's own network.
func (s *scene) fetch(n *node, url string) (string, error) {
	busybox, err := exec.LookPath("busybox") // of which the images are, too
	if err != nil {
		return "", err
	}
	return s.onNode(n, busybox, "wget", "-q", "-O", "-", url)
}

// pod is what the steps look at of a pod.
type pod struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
	}
	Spec   struct{ NodeName string }
	Status struct {
		Phase, PodIP      string
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct {
			RestartCount int
			Resources    struct{ Limits map[string]string }
		}
	}
}

func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && p.Metadata.DeletionTimestamp == ""
		}
	}
	return false
}

// pods are those with a label.
func (s *scene) pods(label string) []pod {
	s.t.Helper()
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(s.kubectl("get", "pods", "-l", label, "-o", "json")), &list); err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

// readyPods are as many, all ready.
func (s *scene) readyPods(label string, count int) (found []pod) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d pods with %s are ready", count, label), func() error {
		found = nil
		var others []string
		for _, p := range s.pods(label) {
			if p.ready() {
				found = append(found, p)
			} else {
				others = append(others, p.Metadata.Name+" "+p.Status.Phase)
			}
		}
		if len(found) != count || len(others) > 0 {
			return fmt.Errorf("%d are, others: %q", len(found), others)
		}
		return nil
	})
	return found
}

func (s *scene) value(kind, name, path string) string {
	s.t.Helper()
	return s.kubectl("get", kind, name, "-o", "jsonpath={"+path+"}")
}

// explain shows what the cluster says after a failure.
func (s *scene) explain() {
	for _, args := range [][]string{{"get", "pods", "-A", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		out, err := s.c.kubectl(args...)
		s.t.Logf("%s\n%s %v", strings.Join(args, " "), out, err)
	}
	for _, n := range s.c.nodes {
		for _, name := range []string{"cri-mini", "kubelet", "kube-proxy"} {
			p := process{log: filepath.Join(n.dir, "log", name+".log")}
			s.t.Logf("%s of %s:\n%s", name, n.name, p.tail(15))
		}
	}
}

func want(text string, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return fmt.Errorf("%q lacks %q", text, part)
		}
	}
	return nil
}

var errNone = errors.New("none")
