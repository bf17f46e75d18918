package kubelet

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// apiServer is as much of one as a kubelet needs to take pods that are not
// static: only those it evicts. It keeps the objects that it is given and tells
// of each change whoever watches. It checks nothing and has no controllers.
type apiServer struct {
	t       *testing.T
	address string

	mu      sync.Mutex
	objects map[string]object // by path, such as /api/v1/namespaces/default/pods/plain
	changes []change          // the version of each is one more than its index
	more    chan struct{}     // closed when there is another change
}

type object = map[string]any

type change struct {
	path   string
	Type   string `json:"type"`
	Object object `json:"object"`
}

func startAPIServer(t *testing.T) *apiServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &apiServer{t: t, address: listener.Addr().String(), objects: map[string]object{}, more: make(chan struct{})}
	// A kubelet that has to make its node itself complains of its absence first.
	s.put(nodePath, object{"kind": "Node", "apiVersion": "v1", "metadata": object{"name": "node"}, "status": object{
		"conditions": []any{object{"type": "Ready", "status": "Unknown", "reason": "NodeStatusNeverUpdated"}}}})
	server := &http.Server{Handler: s}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() }) // watches have no end of their own
	return s
}

// kubeconfig tells a kubelet where the server is.
func (s *apiServer) kubeconfig(file string) {
	s.t.Helper()
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], "+
		"clusters: [{name: c, cluster: {server: 'http://%s'}}]}", s.address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// ServeHTTP knows objects, their lists, and their parts such as status, which it
// keeps with the rest.
func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path
	for _, part := range []string{"/status", "/resize", "/ephemeralcontainers"} {
		name = strings.TrimSuffix(name, part)
	}
	var body object
	if r.Method != http.MethodGet && r.ContentLength != 0 {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodGet && query.Get("sendInitialEvents") != "":
		answer(w, http.StatusUnprocessableEntity, refusal("Invalid", "lists come by GET")) // the client asks so then
	case r.Method == http.MethodGet && query.Get("watch") != "":
		s.watch(w, r, name)
	case r.Method == http.MethodGet && isList(name):
		answer(w, http.StatusOK, s.list(name))
	case r.Method == http.MethodPost:
		s.create(w, name, body)
	case r.Method == http.MethodPut:
		s.reply(w, name, s.put(name, body))
	case r.Method == http.MethodPatch:
		s.reply(w, name, s.patch(name, body))
	case r.Method == http.MethodDelete:
		s.remove(name)
		answer(w, http.StatusOK, object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	default:
		s.reply(w, name, s.get(name))
	}
}

func (s *apiServer) create(w http.ResponseWriter, list string, o object) {
	metadata, _ := o["metadata"].(object)
	name := list + "/" + fmt.Sprint(metadata["name"])
	if s.get(name) != nil { // nobody else creates
		answer(w, http.StatusConflict, refusal("AlreadyExists", name+" is there"))
		return
	}
	s.reply(w, name, s.put(name, o))
}

func answer(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who is not there any more gets nothing
}

func (s *apiServer) reply(w http.ResponseWriter, name string, o object) {
	if o == nil {
		message := fmt.Sprintf("%s %q not found", path.Base(path.Dir(name)), path.Base(name))
		answer(w, http.StatusNotFound, refusal("NotFound", message))
		return
	}
	answer(w, http.StatusOK, o)
}

func refusal(reason, message string) object {
	code := map[string]int{"NotFound": http.StatusNotFound, "AlreadyExists": http.StatusConflict, "Invalid": http.StatusUnprocessableEntity}[reason]
	return object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}
}

// isList tells the path of a list from that of an object, by how many parts
// there are: /api/v1/nodes, /apis/GROUP/v1/namespaces/N/leases.
func isList(name string) bool {
	parts := strings.Split(strings.Trim(name, "/"), "/")
	parts = parts[min(len(parts), map[string]int{"api": 2, "apis": 3}[parts[0]]):]
	if len(parts) > 1 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	return len(parts) == 1
}

// within tells whether an object belongs to a list: to that of its namespace, or
// to that of all.
func within(list, name string) bool {
	dir := path.Dir(name)
	if before, rest, ok := strings.Cut(dir, "/namespaces/"); ok && !strings.Contains(list, "/namespaces/") {
		dir = before + "/" + path.Base(rest)
	}
	return dir == list
}

func (s *apiServer) list(name string) object {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []object{}
	for _, at := range slices.Sorted(maps.Keys(s.objects)) {
		if within(name, at) {
			items = append(items, s.objects[at])
		}
	}
	whole := object{"metadata": object{"resourceVersion": fmt.Sprint(len(s.changes))}, "items": items}
	if path.Base(name) == "pods" { // the one list whose kind the client does not know by itself
		whole["kind"], whole["apiVersion"] = "PodList", "v1"
	}
	return whole
}

// watch tells of the changes after a version, and of those to come.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, name string) {
	var next int
	if _, err := fmt.Sscan(r.URL.Query().Get("resourceVersion"), &next); err != nil {
		http.Error(w, "resourceVersion: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	for {
		s.mu.Lock()
		changes, more := s.changes[next:], s.more
		next = len(s.changes)
		s.mu.Unlock()
		for _, c := range changes {
			if within(name, c.path) {
				_ = json.NewEncoder(w).Encode(c)
			}
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

func (s *apiServer) get(name string) object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[name]
}

func (s *apiServer) put(name string, o object) object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.putLocked(name, o)
}

// putLocked never changes an object that somebody may have: it keeps a new one.
func (s *apiServer) putLocked(name string, o object) object {
	kind := "MODIFIED"
	if s.objects[name] == nil {
		kind = "ADDED"
	}
	own, _ := o["metadata"].(object)
	own = merged(own, object{"resourceVersion": fmt.Sprint(len(s.changes) + 1)})
	if own["uid"] == nil {
		own["uid"] = fmt.Sprintf("00000000-0000-4000-8000-%012d", len(s.changes))
		own["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	}
	o = merged(o, object{"metadata": own})
	s.objects[name] = o
	s.told(change{name, kind, o})
	return o
}

func (s *apiServer) told(c change) {
	s.changes = append(s.changes, c)
	close(s.more)
	s.more = make(chan struct{})
}

func (s *apiServer) patch(name string, with object) object {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[name]
	if o == nil {
		return nil
	}
	return s.putLocked(name, merged(o, with))
}

func (s *apiServer) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[name]; o != nil {
		delete(s.objects, name)
		s.told(change{name, "DELETED", o})
	}
}

// merged is a new object. Of lists only that of conditions is merged, by type:
// the others a kubelet writes whole.
func merged(o, with object) object {
	whole := maps.Clone(o)
	if whole == nil {
		whole = object{}
	}
	for key, value := range with {
		switch value := value.(type) {
		case nil:
			delete(whole, key)
		case object:
			before, _ := whole[key].(object)
			whole[key] = merged(before, value)
		case []any:
			if key == "conditions" {
				before, _ := whole[key].([]any)
				whole[key] = mergedConditions(before, value)
			} else if !strings.HasPrefix(key, "$") {
				whole[key] = value
			}
		default:
			whole[key] = value
		}
	}
	return whole
}

func mergedConditions(list, with []any) []any {
	list = slices.Clone(list)
	for _, one := range with {
		condition := one.(object)
		same := func(c any) bool { return c.(object)["type"] == condition["type"] }
		at := slices.IndexFunc(list, same)
		switch {
		case condition["$patch"] == "delete":
			list = slices.DeleteFunc(list, same)
		case at < 0:
			list = append(list, condition)
		default:
			list[at] = merged(list[at].(object), condition)
		}
	}
	return list
}

const nodePath = "/api/v1/nodes/node"

const podsPath = "/api/v1/namespaces/default/pods/"

// addPod gives the kubelet the pod of a manifest by way of the server, as the
// scheduler has it bound to the node.
func (s *apiServer) addPod(manifest []byte) {
	s.t.Helper()
	var o object
	if err := yaml.Unmarshal(manifest, &o); err != nil {
		s.t.Fatal(err)
	}
	o["status"] = object{"phase": "Pending"}
	o["spec"] = merged(object{ // the defaults that a real server fills in
		"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "nodeName": "node", "enableServiceLinks": false,
	}, o["spec"].(object))
	for _, c := range o["spec"].(object)["containers"].([]any) {
		c.(object)["imagePullPolicy"] = "IfNotPresent"
	}
	s.put(podsPath+o["metadata"].(object)["name"].(string), o)
}

// pod is what the kubelet told of one.
func (s *apiServer) pod(name string) (*pod, error) {
	o := s.get(podsPath + name)
	if o == nil {
		return nil, fmt.Errorf("no pod %s", name)
	}
	p := &pod{}
	return p, convert(o, p)
}

// deletePod asks the kubelet to end a pod. It removes the object when it has.
func (s *apiServer) deletePod(name string) {
	s.t.Helper()
	if s.patch(podsPath+name, object{"metadata": object{
		"deletionTimestamp": time.Now().UTC().Format(time.RFC3339), "deletionGracePeriodSeconds": 1}}) == nil {
		s.t.Errorf("no pod %s to delete", name)
	}
}

// removePods forgets those that a test has left.
func (s *apiServer) removePods() {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.objects))
	s.mu.Unlock()
	for _, name := range names {
		if strings.HasPrefix(name, podsPath) {
			s.remove(name)
		}
	}
}

// nodeCondition is what the kubelet said last of its node.
func (s *apiServer) nodeCondition(kind string) (string, error) {
	o := s.get(nodePath)
	if o == nil {
		return "", fmt.Errorf("the kubelet has not registered its node")
	}
	var node struct{ Status podStatus } // the conditions are alike
	if err := convert(o, &node); err != nil {
		return "", err
	}
	return (&pod{Status: node.Status}).condition(kind), nil
}

func convert(o object, into any) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
