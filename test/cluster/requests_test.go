//go:build cluster

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// portForward asks through kubectl, to a pod and to a Service.
func portForward(s *scene) {
	s.plain()
	for target, answer := range map[string]string{"pod/plain": "hello from web 1\n", "service/web": "hello from web 1\n"} {
		port := "8080"
		if strings.HasPrefix(target, "service") {
			port = "80"
		}
		cmd := s.c.kubectlCommand("port-forward", target, ":"+port)
		out, err := cmd.StdoutPipe()
		if err != nil {
			s.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		found := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
		if err != nil || found == "" {
			s.t.Errorf("%s: kubectl says %q, %v", target, line, err)
		}
		for range 20 {
			if got, err := get("http://" + found + "/"); err != nil || got != answer {
				s.t.Errorf("%s: %q, %v", target, got, err)
				break
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var text strings.Builder
	_, err = bufio.NewReader(answer.Body).WriteTo(&text)
	if answer.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(answer.Status))
	}
	return text.String(), err
}

// askers ask the Service by connection after connection until they are told to
// end: a pod on each node by its address, and somebody beyond the nodes by the
// port of each.
type askers struct {
	sync.WaitGroup
	stop chan struct{}

	mu       sync.Mutex
	failures []string
	answers  map[string]int // by what was answered
}

func (a *askers) note(from, answer string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.failures = append(a.failures, fmt.Sprintf("from %s: %v", from, err))
		return
	}
	a.answers[strings.TrimSpace(answer)]++
}

// rollingUpdate changes the image of a Deployment under load, forth and back and
// forth.
func rollingUpdate(s *scene) {
	a := &askers{stop: make(chan struct{}), answers: map[string]int{}}
	url := "http://" + s.value("service", "web", ".spec.clusterIP") + "/version"
	for _, p := range s.pods("app=client") {
		a.Go(func() { a.askFromPod(s, p.Metadata.Name, url) })
	}
	for _, n := range s.c.nodes {
		a.Go(func() {
			for {
				select {
				case <-a.stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				answer, err := get("http://" + nodeAddress(n.name) + ":30080/version")
				a.note("the port of "+n.name, answer, err)
			}
		})
	}
	for _, version := range []string{"2", "1", "2"} {
		s.kubectl("set", "image", "deployment/web", "web=registry.test/web:"+version)
		s.kubectl("rollout", "status", "deployment/web", "--timeout=300s")
		s.readyPods("app=web", 3) // and none of the earlier version, which end last
	}
	close(a.stop)
	a.Wait()
	for _, f := range a.failures {
		s.t.Error(f)
	}
	if a.answers["1"] == 0 || a.answers["2"] == 0 || len(a.answers) != 2 {
		s.t.Errorf("answers: %v", a.answers)
	}
	s.t.Logf("answers by version: %v, %d failures", a.answers, len(a.failures))
}

// askFromPod runs one shell in the pod that asks until its input ends.
func (a *askers) askFromPod(s *scene, name, url string) {
	const loop = `while [ ! -e /tmp/stop ]; do wget -q -O - "$0" || echo failed; sleep 0.05; done; rm /tmp/stop`
	cmd := s.c.kubectlCommand("exec", name, "--", "sh", "-c", loop, url)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		a.note(name, "", err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "failed" {
				a.note(name, "", errors.New("wget failed"))
			} else {
				a.note(name, lines.Text(), nil)
			}
		}
	}()
	<-a.stop
	if _, err := s.c.kubectl("exec", name, "--", "touch", "/tmp/stop"); err != nil {
		a.note(name, "", err)
	}
	<-done
	if err := cmd.Wait(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 0 {
			a.note(name, "", err)
		}
	}
}
