package kubelet

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPodsLiveAsKubernetesPromises puts one pod after the other to a kubelet,
// at the same time: each waits for something most of the time.
func TestPodsLiveAsKubernetesPromises(t *testing.T) {
	n := start(t)
	for name, scenario := range map[string]func(*testing.T, *node){
		"InitContainersRunInOrder":                initContainers,
		"SidecarEndsAfterTheLastContainer":        sidecar,
		"RestartPoliciesHold":                     restartPolicies,
		"ExitCodesAndReasonsArrive":               exitReasons,
		"ProbesDecide":                            probes,
		"HooksRunAroundTheLifeOfAContainer":       hooks,
		"GraceEndsWithAKill":                      grace,
		"VolumesAreThere":                         volumes,
		"ProcessesOfASharedNamespaceSeeEachOther": sharedProcesses,
		"HostNetworkIsTheNodes":                   hostNetwork,
		"HostPortLeadsToThePod":                   hostPort,
		"UserNamespaceHoldsThePod":                userNamespace,
	} {
		t.Run(name, func(t *testing.T) {
			own := *n
			own.t = t
			t.Parallel()
			scenario(t, &own)
		})
	}
}

func initContainers(t *testing.T, n *node) {
	n.add("init")
	p := n.ready("init")
	if got := n.logs("init", "main"); got != "one\ntwo\n" {
		t.Errorf("steps %q", got)
	}
	for _, name := range []string{"first", "second"} {
		if c, err := p.container(name); err != nil || c.State.Terminated == nil || c.State.Terminated.Reason != "Completed" {
			t.Errorf("init container %s: %v, %+v", name, err, c)
		}
	}
	n.remove("init")
}

func sidecar(t *testing.T, n *node) {
	n.add("sidecar")
	p := n.until("sidecar", "succeeded", func(p *pod) bool { return p.Status.Phase == "Succeeded" })
	if c, err := p.container("sidecar"); err != nil || c.State.Terminated == nil || c.State.Terminated.ExitCode != 0 {
		t.Errorf("sidecar: %v, %+v", err, c)
	}
	if got := n.logs("sidecar", "sidecar"); got != "asked to end\n" {
		t.Errorf("log of the sidecar %q", got)
	}
	n.remove("sidecar")
}

func restartPolicies(t *testing.T, n *node) {
	for _, name := range []string{"always", "onfailure", "never"} {
		n.add(name)
	}
	p := n.until("always", "restarted", func(p *pod) bool {
		c, err := p.container("main")
		return err == nil && c.RestartCount >= 2
	})
	if c, _ := p.container("main"); c.LastState.Terminated == nil || c.LastState.Terminated.ExitCode != 3 || c.LastState.Terminated.Reason != "Error" {
		t.Errorf("always: last state %+v", c.LastState.Terminated)
	}
	// The kubelet may just be removing the one that it names.
	n.eventually("there is the log of the life before", func() error {
		if got := n.logs("always", "main", "previous=true"); got != "life\n" {
			return fmt.Errorf("log %q", got)
		}
		return nil
	})
	p = n.until("onfailure", "succeeded", func(p *pod) bool { return p.Status.Phase == "Succeeded" })
	if c, _ := p.container("main"); c.RestartCount != 1 {
		t.Errorf("onfailure: restarted %d times", c.RestartCount)
	}
	p = n.until("never", "failed", func(p *pod) bool { return p.Status.Phase == "Failed" })
	c, _ := p.container("main")
	if end := c.State.Terminated; c.RestartCount != 0 || end == nil || end.ExitCode != 7 || end.Message != "reason\n" {
		t.Errorf("never: %+v", c)
	}
	for _, name := range []string{"always", "onfailure", "never"} {
		n.remove(name)
	}
}

func exitReasons(t *testing.T, n *node) {
	n.add("killed")
	p := n.until("killed", "failed", func(p *pod) bool { return p.Status.Phase == "Failed" })
	if c, err := p.container("main"); err != nil || c.State.Terminated == nil || c.State.Terminated.ExitCode != 137 || c.State.Terminated.Reason != "Error" {
		t.Errorf("killed: %v, %s", err, p)
	}
	c, err := p.container("absent")
	if err != nil || c.State.Terminated == nil || c.State.Terminated.ExitCode != 127 || !strings.Contains(c.State.Terminated.Message, "/no/such/program") {
		t.Errorf("absent program: %v, %s", err, p)
	}
	n.remove("killed")
}

func probes(t *testing.T, n *node) {
	n.add("probes")
	n.ready("probes")
	n.run("probes", "http", "rm", "/tmp/www/ready")
	n.until("probes", "not ready", func(p *pod) bool { return p.condition("Ready") == "False" })
	n.run("probes", "http", "touch", "/tmp/www/ready")
	n.ready("probes")
	n.run("probes", "exec", "rm", "/tmp/ok")
	p := n.until("probes", "restarted", func(p *pod) bool {
		c, err := p.container("exec")
		return err == nil && c.RestartCount == 1 && c.Ready
	})
	for _, name := range []string{"http", "grpc"} {
		if c, err := p.container(name); err != nil || c.RestartCount != 0 {
			t.Errorf("%s was restarted: %v %+v", name, err, c)
		}
	}
	n.remove("probes")
}

func hooks(t *testing.T, n *node) {
	n.add("hooks")
	n.ready("hooks")
	n.remove("hooks")
	steps, err := os.ReadFile(filepath.Join(n.Volume(), "hooks/steps"))
	if err != nil || string(steps) != "postStart\npreStop\nTERM\n" {
		t.Errorf("steps %q, %v", steps, err)
	}
}

func grace(t *testing.T, n *node) {
	n.add("stubborn")
	n.ready("stubborn")
	begin := time.Now()
	n.remove("stubborn")
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("a pod that ignores SIGTERM was gone after %s, before its grace", took)
	}
}

func volumes(t *testing.T, n *node) {
	if err := os.MkdirAll(filepath.Join(n.Volume(), "below/here"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Volume(), "below/here/file"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.add("volumes")
	n.ready("volumes")
	if got := n.logs("volumes", "main"); got != "42\n" {
		t.Errorf("log %q", got)
	}
	for command, want := range map[string]string{
		"cat /disk/file":        "disk",
		"cat /memory/file":      "memory",
		"cat /downward/name":    "volumes-node",
		"cat /host/file":        "of the host",
		"stat -c %g /disk/file": "4321",
		"stat -f -c %T /memory": "tmpfs",
		"id -G":                 "1000 4321",
	} {
		if got := n.run("volumes", "main", strings.Fields(command)...); strings.TrimSpace(got) != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	for _, command := range []string{"touch /image/new", "touch /host/new", "touch /downward/new"} {
		if _, err := n.tryRun("volumes", "main", strings.Fields(command)...); err == nil || !strings.Contains(err.Error(), "Read-only") {
			t.Errorf("%s: %v, want a read-only file system", command, err)
		}
	}
	n.remove("volumes")
}

func sharedProcesses(t *testing.T, n *node) {
	n.add("shared")
	n.ready("shared")
	got := n.run("shared", "one", "ps")
	for _, want := range []string{"1111", "2222"} {
		if !strings.Contains(got, want) {
			t.Errorf("no sleep %s in\n%s", want, got)
		}
	}
	n.remove("shared")
}

func hostNetwork(t *testing.T, n *node) {
	n.add("hostnet")
	n.ready("hostnet")
	want, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := n.run("hostnet", "main", "readlink", "/proc/self/ns/net"); strings.TrimSpace(got) != want {
		t.Errorf("network namespace %q, want the node's, %q", got, want)
	}
	n.remove("hostnet")
}

func hostPort(t *testing.T, n *node) {
	n.add("hostport")
	p := n.ready("hostport")
	for _, address := range []string{"127.0.0.1:18080", p.Status.PodIP + ":80"} {
		answer, err := http.Get("http://" + address)
		if err != nil {
			t.Error(err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(body) != "hello\n" {
			t.Errorf("%s: %q, %v", address, body, err)
		}
	}
	n.remove("hostport")
}

func userNamespace(t *testing.T, n *node) {
	n.add("users")
	n.ready("users")
	first := strings.Fields(n.logs("users", "main"))
	if len(first) != 3 || first[0] != "0" || first[1] == "0" || first[2] != "65536" {
		t.Errorf("mapping %q", first)
	}
	if got := n.run("users", "main", "stat", "-c", "%u", "/volume/mine"); strings.TrimSpace(got) != "0" {
		t.Errorf("owner of a file in a volume, seen inside: %q", got)
	}
	if got := n.run("users", "main", "cat", "/proc/self/status"); !strings.Contains(got, "Seccomp:\t2") || !strings.Contains(got, "NoNewPrivs:\t1") {
		t.Errorf("neither a filter nor no_new_privs:\n%s", got)
	}
	n.remove("users")
}

// summary is what the tests look at of the kubelet's /stats/summary.
type summary struct {
	Pods []struct {
		PodRef     struct{ Name string }
		CPU        *struct{ UsageNanoCores, UsageCoreNanoSeconds *uint64 }
		Memory     *struct{ WorkingSetBytes *uint64 }
		Network    *struct{ RxBytes, TxBytes *uint64 }
		Containers []struct {
			Name   string
			CPU    *struct{ UsageCoreNanoSeconds *uint64 }
			Memory *struct{ WorkingSetBytes *uint64 }
			Rootfs *struct{ UsedBytes *uint64 }
		}
	}
}

func (n *node) summary() (*summary, error) {
	body, err := n.get("/stats/summary")
	if err != nil {
		return nil, err
	}
	s := &summary{}
	return s, json.Unmarshal(body, s)
}

func TestKubeletAndDaemonRestartWithoutAPodNoticing(t *testing.T) {
	n := start(t)
	n.add("plain")
	before, _ := n.ready("plain").container("main")
	same := func(after string) {
		t.Helper()
		// Long enough for the kubelet to look at everything twice.
		time.Sleep(12 * time.Second)
		c, err := n.ready("plain").container("main")
		if err != nil || c.ContainerID != before.ContainerID || c.RestartCount != 0 {
			t.Errorf("after %s: %v, %+v, want %s", after, err, c, before.ContainerID)
		}
	}
	n.kubelet.stop()
	n.startKubelet()
	same("a restart of the kubelet")
	n.daemonAway = true
	n.daemon.stop()
	n.startDaemon()
	same("a restart of the daemon")
	n.remove("plain")
}

func TestLogsRotateUnderLoadWithoutALostLine(t *testing.T) {
	n := start(t)
	n.add("chatty")
	p := n.ready("chatty")
	dir := filepath.Join(n.PodLogs(), "default_chatty-node_"+p.Metadata.UID, "main")
	n.eventually("the log was rotated", func() error {
		rotated, err := filepath.Glob(dir + "/0.log.*")
		if err == nil && len(rotated) < 2 {
			err = fmt.Errorf("%d old logs in %s", len(rotated), dir)
		}
		return err
	})
	// What the kubelet does with the files would come between.
	n.kubelet.signal(syscall.SIGSTOP)
	defer n.kubelet.signal(syscall.SIGCONT)
	last := 0
	for line := range strings.Lines(readLogs(t, dir)) {
		var at string
		var i int
		if _, err := fmt.Sscanf(line, "%s stdout F line %d ", &at, &i); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if last != 0 && i != last+1 {
			t.Fatalf("line %d after %d", i, last)
		}
		last = i
	}
	if last == 0 {
		t.Error("no line")
	}
}

// readLogs puts the old logs of a container, compressed or not, before the
// present one. Their names tell their age.
func readLogs(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(dir + "/0.log.*")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range append(names, dir+"/0.log") {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var r io.Reader = file
		if strings.HasSuffix(name, ".gz") {
			if r, err = gzip.NewReader(file); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if _, err := io.Copy(&all, r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	whole := all.String()
	return whole[:strings.LastIndexByte(whole, '\n')+1]
}

// TestStatisticsComeFromTheRuntimeWithAllGates turns everything on by which the
// kubelet asks the runtime instead of looking for itself.
func TestStatisticsComeFromTheRuntimeWithAllGates(t *testing.T) {
	n := start(t, "PodAndContainerStatsFromCRI", "EventedPLEG", "CRIListStreaming")
	n.add("plain")
	n.ready("plain")
	n.eventually("the summary has the pod", func() error {
		s, err := n.summary()
		if err != nil {
			return err
		}
		for _, p := range s.Pods {
			if p.PodRef.Name != "plain-node" {
				continue
			}
			if p.Network == nil || p.Network.RxBytes == nil || len(p.Containers) != 1 {
				return fmt.Errorf("pod without network or container: %+v", p)
			}
			return nil
		}
		return errors.New("no pod plain")
	})
	if body, err := n.get("/metrics/cadvisor"); err != nil || !strings.Contains(string(body), `pod="plain-node"`) {
		t.Errorf("no metrics of the pod: %v", err)
	}
	n.remove("plain")
}
