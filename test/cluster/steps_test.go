//go:build cluster

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cri-mini/internal/enclosure"
)

func nodesReady(s *scene) {
	ranges, err := s.c.ranges()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range nodeNames {
		if got := s.value("node", name, `.status.conditions[?(@.type=="Ready")].status`); got != "True" {
			s.t.Errorf("%s is ready: %s", name, got)
		}
		if got := s.value("node", name, ".status.nodeInfo.containerRuntimeVersion"); !strings.HasPrefix(got, "cri-mini://") {
			s.t.Errorf("%s runs %s", name, got)
		}
		if _, err := netip.ParsePrefix(ranges[name]); err != nil {
			s.t.Error(err)
		}
	}
	s.t.Log(s.kubectl("get", "nodes", "-o", "wide"))
}

func daemonSet(s *scene) {
	s.apply("client")
	s.kubectl("rollout", "status", "daemonset/client", "--timeout=300s")
	var on []string
	for _, p := range s.readyPods("app=client", len(nodeNames)) {
		on = append(on, p.Spec.NodeName)
	}
	if slices.Sort(on); !slices.Equal(on, nodeNames) {
		s.t.Errorf("its pods are on %q", on)
	}
}

func deployment(s *scene) {
	s.apply("web")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=300s")
	on, names := map[string]bool{}, map[string]bool{}
	for _, p := range s.readyPods("app=web", 3) {
		on[p.Spec.NodeName], names[p.Metadata.Name] = true, true
	}
	if len(on) != len(nodeNames) {
		s.t.Errorf("its pods are on %v only", on)
	}
	url := "http://" + s.value("service", "web", ".spec.clusterIP") + "/cgi-bin/who"
	for _, n := range s.c.nodes {
		s.allAnswer(n.name, names, func() (string, error) { return s.fetch(n, url) })
	}
	for _, p := range append(s.pods("app=client"), s.pods("app=web")...) {
		s.allAnswer(p.Metadata.Name, names, func() (string, error) {
			return s.c.kubectl("exec", p.Metadata.Name, "--", "wget", "-q", "-O", "-", url)
		})
	}
	for _, n := range s.c.nodes { // from beyond the nodes, by a port of theirs
		s.allAnswer("the port of "+n.name, names, func() (string, error) {
			return command("busybox", "wget", "-q", "-O", "-", "http://"+nodeAddress(n.name)+":30080/cgi-bin/who")
		})
	}
}

// allAnswer asks until each pod has answered. No question may fail after the
// first that did not.
func (s *scene) allAnswer(from string, names map[string]bool, ask func() (string, error)) {
	s.t.Helper()
	s.eventually("the Service is known to "+from, func() error { // a proxy hears of it a moment later
		_, err := ask()
		return err
	})
	seen := map[string]bool{}
	s.eventually("all pods have answered "+from, func() error {
		answer, err := ask()
		if err != nil {
			s.t.Fatalf("from %s: %v", from, err)
		}
		fields := strings.Fields(answer)
		if len(fields) != 3 || fields[0] != "1" || !names[fields[1]] {
			s.t.Fatalf("from %s: answer %q", from, answer)
		}
		if seen[fields[1]] = true; len(seen) < len(names) {
			return fmt.Errorf("only %v", seen)
		}
		return nil
	})
}

// podNetwork asks from every pod of the DaemonSet every web server by its own
// address: it sees the address that the asking pod knows as its own. The API
// server, which is in no pod, answers them too.
func podNetwork(s *scene) {
	ranges, err := s.c.ranges()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, from := range s.pods("app=client") {
		ip, err := netip.ParseAddr(from.Status.PodIP)
		if err != nil || !netip.MustParsePrefix(ranges[from.Spec.NodeName]).Contains(ip) {
			s.t.Errorf("%s has %s, not of the range %s of %s", from.Metadata.Name, from.Status.PodIP, ranges[from.Spec.NodeName], from.Spec.NodeName)
		}
		s.kubectl("exec", from.Metadata.Name, "--", "sh", "-c",
			"test -s /var/run/secrets/kubernetes.io/serviceaccount/token && nc -w 10 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null")
		for _, to := range s.pods("app=web") {
			answer := s.kubectl("exec", from.Metadata.Name, "--", "wget", "-q", "-O", "-", "http://"+to.Status.PodIP+":8080/cgi-bin/who")
			if err := want(answer, "1 "+to.Metadata.Name+" ", from.Status.PodIP); err != nil {
				s.t.Errorf("from %s on %s to %s on %s: %v", from.Metadata.Name, from.Spec.NodeName, to.Metadata.Name, to.Spec.NodeName, err)
			}
		}
	}
}

func job(s *scene) {
	s.apply("job")
	s.kubectl("wait", "--for=condition=Complete", "--timeout=300s", "job/sum")
	if got := s.value("job", "sum", ".status.succeeded"); got != "4" {
		s.t.Errorf("%s pieces succeeded", got)
	}
	var restarts int
	for _, p := range s.pods("app=sum") {
		restarts += p.Status.ContainerStatuses[0].RestartCount
	}
	if restarts != 4 {
		s.t.Errorf("%d restarts, want one of each of 4 pods", restarts)
	}
	logs := s.kubectl("logs", "-l", "app=sum", "--tail=-1")
	if err := want(logs, "piece 0 done", "piece 1 done", "piece 2 done", "piece 3 done"); err != nil {
		s.t.Error(err)
	}
}

// plain makes the pod of that name, or finds it.
func (s *scene) plain() {
	s.t.Helper()
	s.apply("plain")
	s.kubectl("wait", "--for=condition=Ready", "--timeout=300s", "pod/plain")
}

func execAndLogs(s *scene) {
	s.plain()
	in := s.c.kubectlCommand("exec", "-i", "plain", "--", "sh", "-c", "cat; echo; id -u; hostname; exit 7")
	in.Stdin = strings.NewReader("from outside")
	out, err := in.output()
	if err == nil || in.ProcessState.ExitCode() != 7 || out != "from outside\n0\nplain\n" {
		s.t.Errorf("exec: %q, %v; want the exit code 7", out, err)
	}
	if got := s.kubectl("logs", "plain"); got != "line 1\nline 2\nline 3\n" {
		s.t.Errorf("logs: %q", got)
	}
	if got := s.kubectl("logs", "--tail=1", "--timestamps", "plain"); !strings.HasSuffix(got, "Z line 3\n") {
		s.t.Errorf("the last line of the log: %q", got)
	}
	follow := s.c.kubectlCommand("logs", "-f", "--pod-running-timeout=60s", "short")
	s.kubectl("run", "short", "--image=registry.test/busybox:1", "--restart=Never", "--", "sh", "-c", "echo begin; sleep 3; echo end")
	s.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "--timeout=300s", "pod/short")
	if got, err := follow.output(); err != nil || got != "begin\nend\n" {
		s.t.Errorf("a followed log: %q, %v", got, err)
	}
	s.kubectl("delete", "pod", "short")
}

func copyFiles(s *scene) {
	s.plain()
	from := filepath.Join(s.c.dir, "there")
	if err := os.MkdirAll(filepath.Join(from, "deep"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	content := strings.Repeat("0123456789abcde\n", 1<<16) // 1 MiB
	if err := os.WriteFile(filepath.Join(from, "deep", "file"), []byte(content), 0o640); err != nil {
		s.t.Fatal(err)
	}
	s.kubectl("cp", from, "plain:/tmp/there")
	if got := s.kubectl("exec", "plain", "--", "wc", "-c", "/tmp/there/deep/file"); !strings.HasPrefix(strings.TrimSpace(got), "1048576 ") {
		s.t.Errorf("what arrived: %q", got)
	}
	back := filepath.Join(s.c.dir, "back")
	s.kubectl("cp", "plain:/tmp/there", back)
	if got, err := os.ReadFile(filepath.Join(back, "deep", "file")); err != nil || string(got) != content {
		s.t.Errorf("what came back: %d bytes, %v", len(got), err)
	}
}

// ephemeral adds a container that sees its target's processes and files, and
// has an image and a file system of its own.
func ephemeral(s *scene) {
	s.plain()
	s.kubectl("debug", "plain", "--image=registry.test/busybox:1", "--target=main", "--container=doctor", "--profile=general", "--", "sleep", "100000")
	s.eventually("the container for debugging runs", func() error {
		got := s.value("pod", "plain", ".status.ephemeralContainerStatuses[0].state.running")
		if got == "" {
			return errNone
		}
		return nil
	})
	look := s.kubectl("exec", "plain", "-c", "doctor", "--", "ps")
	if err := want(look, "httpd -f -p 8080", "sleep 100000"); err != nil {
		s.t.Errorf("processes: %v", err)
	}
	if got := s.kubectl("exec", "plain", "-c", "doctor", "--", "cat", "/proc/1/root/www/version"); got != "1\n" {
		s.t.Errorf("a file of the target, by its process: %q", got)
	}
	if got, err := s.c.kubectl("exec", "plain", "-c", "doctor", "--", "ls", "/www"); err == nil {
		s.t.Errorf("its own file system has the target's files: %q", got)
	}
	if got := s.kubectl("exec", "plain", "-c", "doctor", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/version"); got != "1\n" {
		s.t.Errorf("the network of the pod: %q", got)
	}
	if got := s.kubectl("exec", "plain", "-c", "main", "--", "ps"); strings.Contains(got, "sleep 100000") != true {
		s.t.Errorf("the target does not see the other: it is one process table: %q", got)
	}
}

func resize(s *scene) {
	names, err := controllers()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"cpu", "memory"} {
		if !slices.Contains(names, name) {
			s.t.Skipf("cgroup controller %s is missing", name)
		}
	}
	s.apply("resize")
	s.kubectl("wait", "--for=condition=Ready", "--timeout=300s", "pod/resize")
	s.kubectl("patch", "pod", "resize", "--subresource=resize", "--patch",
		`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"200m","memory":"48Mi"},"limits":{"cpu":"400m","memory":"128Mi"}}}]}}`)
	s.eventually("the pod has its new limits", func() error {
		return want(s.kubectl("exec", "resize", "--", "cat", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max"), "40000 100000", "134217728")
	})
	if got := s.value("pod", "resize", ".status.containerStatuses[0].restartCount"); got != "0" {
		s.t.Errorf("%s restarts", got)
	}
	s.kubectl("delete", "pod", "resize")
}

func drain(s *scene) {
	const away, other = "node-2", "node-1"
	s.kubectl("drain", away, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=300s")
	for _, p := range s.readyPods("app=web", 3) {
		if p.Spec.NodeName != other {
			s.t.Errorf("%s is on %s", p.Metadata.Name, p.Spec.NodeName)
		}
	}
	url := "http://" + s.value("service", "web", ".spec.clusterIP") + "/version"
	for _, n := range s.c.nodes {
		if got, err := s.fetch(n, url); err != nil || got != "2\n" {
			s.t.Errorf("the Service from %s: %q, %v", n.name, got, err)
		}
	}
	s.eventually("nothing but the DaemonSet runs on "+away, func() error {
		out, err := s.onNode(s.c.nodes[slices.Index(nodeNames, away)], enclosure.Program("cri-mini"), "ps")
		for line := range strings.Lines(out) {
			if strings.Contains(line, "running") && !strings.Contains(line, "client-") {
				return errors.New(line)
			}
		}
		return err
	})
	s.kubectl("uncordon", away)
	s.kubectl("scale", "deployment/web", "--replicas=6")
	on := map[string]int{}
	for _, p := range s.readyPods("app=web", 6) {
		on[p.Spec.NodeName]++
	}
	if on[away] == 0 {
		s.t.Errorf("no pod went to %s afterwards: %v", away, on)
	}
}

func deleteAll(s *scene) {
	s.kubectl("delete", "deployment,daemonset,job,service,pod", "--all", "--timeout=300s")
	s.eventually("no pod is left", func() error {
		if out := s.kubectl("get", "pods", "-A", "-o", "name"); out != "" {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
	for _, n := range s.c.nodes {
		s.eventually("no volume is left on "+n.name, func() error {
			table, err := s.onNode(n, "cat", "/proc/self/mounts")
			for line := range strings.Lines(table) {
				if strings.Contains(line, "/var/lib/kubelet/") {
					return errors.New(line)
				}
			}
			return err
		})
	}
}
