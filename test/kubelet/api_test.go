package kubelet

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// address is where kubelet.yaml has the kubelet listen.
const address = "https://127.0.0.1:20250"

// client believes any certificate: the kubelet makes one for itself.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}

// pod is what the tests look at of a v1.Pod.
type pod struct {
	Metadata struct{ Name, Namespace, UID string }
	Status   podStatus
}

type podStatus struct {
	Phase, Reason, Message, PodIP            string
	Conditions                               []condition
	InitContainerStatuses, ContainerStatuses []container
	EphemeralContainerStatuses               []container
	ObservedGeneration                       int64
}

type condition struct{ Type, Status, Reason, Message string }

type container struct {
	Name, ContainerID, Image, ImageID string
	Ready                             bool
	Started                           *bool
	RestartCount                      int
	State, LastState                  containerState
	Resources                         struct{ Requests, Limits map[string]string }
	AllocatedResources                map[string]string
}

type containerState struct {
	Waiting    *struct{ Reason, Message string }
	Running    *struct{ StartedAt time.Time }
	Terminated *struct {
		ExitCode, Signal      int
		Reason, Message       string
		StartedAt, FinishedAt time.Time
	}
}

// get is a question to the kubelet's API.
func (n *node) get(path string) ([]byte, error) { return n.ask(http.MethodGet, path) }

func (n *node) ask(method, path string) ([]byte, error) {
	request, err := http.NewRequest(method, address+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// pod finds a static pod by the name in its file; the kubelet adds its own.
func (n *node) pod(name string) (*pod, error) {
	body, err := n.get("/pods")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	for i := range list.Items {
		if list.Items[i].Metadata.Name == name+"-node" {
			return &list.Items[i], nil
		}
	}
	return nil, fmt.Errorf("no pod %s among %d", name, len(list.Items))
}

// running counts the static pods that run, of those whose names begin so.
func (n *node) running(prefix string) (count int, err error) {
	body, err := n.get("/pods")
	if err != nil {
		return 0, err
	}
	var list struct{ Items []pod }
	if err := json.Unmarshal(body, &list); err != nil {
		return 0, err
	}
	for _, p := range list.Items {
		if strings.HasPrefix(p.Metadata.Name, prefix) && p.Status.Phase == "Running" && p.condition("Ready") == "True" {
			count++
		}
	}
	return count, nil
}

// container finds one by name, init containers too.
func (p *pod) container(name string) (*container, error) {
	for _, list := range [][]container{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i], nil
			}
		}
	}
	return nil, fmt.Errorf("pod %s, phase %q, has no status of container %s: %s", p.Metadata.Name, p.Status.Phase, name, p.Status.Message)
}

func (p *pod) condition(kind string) string {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return "absent"
}

// String is for messages of failed tests.
func (p *pod) String() string {
	text, err := json.Marshal(p.Status)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// ready waits until a pod is ready and returns it.
func (n *node) ready(name string) *pod {
	n.t.Helper()
	return n.until(name, "ready", func(p *pod) bool { return p.condition("Ready") == "True" })
}

// until waits for a pod to become something.
func (n *node) until(name, what string, is func(*pod) bool) *pod {
	n.t.Helper()
	var found *pod
	n.eventually("pod "+name+" is "+what, func() error {
		p, err := n.pod(name)
		if err != nil {
			return err
		}
		if found = p; !is(p) {
			return fmt.Errorf("%s", p)
		}
		return nil
	})
	return found
}

// logs are those of a container, as kubectl logs shows them.
func (n *node) logs(pod, container string, query ...string) string {
	n.t.Helper()
	body, err := n.get("/containerLogs/default/" + pod + "-node/" + container + "?" + strings.Join(query, "&"))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(body)
}

// run runs a command in a container through the kubelet and returns its output.
func (n *node) run(pod, container string, command ...string) string {
	n.t.Helper()
	out, err := n.tryRun(pod, container, command...)
	if err != nil {
		n.t.Fatalf("run %q in %s/%s: %v", command, pod, container, err)
	}
	return out
}

// tryRun names a static pod as its file does.
func (n *node) tryRun(pod, container string, command ...string) (string, error) {
	return n.tryRunAs(pod+"-node", container, command...)
}

func (n *node) tryRunAs(pod, container string, command ...string) (string, error) {
	body, err := n.ask(http.MethodPost, "/run/default/"+pod+"/"+container+"?"+url.Values{"cmd": {strings.Join(command, " ")}}.Encode())
	return string(body), err
}
