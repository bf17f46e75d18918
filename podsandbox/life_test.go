package podsandbox

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/leakcheck"
	"cri-mini/runtime/spec"
)

var update = flag.Bool("update", false, "rewrite the expected output of scripts and golden files")

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestLife runs the scripts of testdata/life. A script is blocks of commands
// and, after a line of dashes, what they answer. Time is that of synctest.
func TestLife(t *testing.T) {
	scripts, err := filepath.Glob("testdata/life/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			synctest.Test(t, func(t *testing.T) { got = runScript(t, string(text)) })
			if *update {
				if err := os.WriteFile(script, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("%s answers\n%s\nwant\n%s", script, got, text)
			}
		})
	}
}

func runScript(t *testing.T, text string) string {
	l := newLife(t)
	defer l.end()
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		commands, _, found := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n")
		if !found {
			continue // a comment
		}
		out.WriteString("----\n")
		for line := range strings.Lines(commands) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			answer := l.do(strings.Fields(line))
			synctest.Wait()
			if answer != "" {
				out.WriteString(strings.TrimRight(l.named(answer), "\n") + "\n")
			}
		}
	}
	return out.String()
}

// life is one daemon after the other in one world.
type life struct {
	t     *testing.T
	root  string
	world *world
	pods  *Pods
	boot  int

	mu    sync.Mutex        // guards ids and names
	ids   map[string]string // by the name in the script
	names map[string]string // and back
	seen  int               // calls already shown
	jobs  map[string]*job
}

type job struct {
	cancel context.CancelFunc
	answer chan string
}

func newLife(t *testing.T) *life {
	l := &life{t: t, root: t.TempDir(), world: newWorld(), ids: map[string]string{}, names: map[string]string{}, jobs: map[string]*job{}}
	l.open()
	return l
}

func (l *life) options() Options {
	return Options{
		Root: l.root, Executor: l.world, Images: l.world, Network: l.world,
		AppArmor: l.world.apparmor, SELinux: &l.world.selinux,
		Logger: slog.New(slog.DiscardHandler), Handlers: []string{"other"},
		BootID: strconv.Itoa(l.boot), OpenFiles: 1024,
		ResolvConf: "testdata/etc/resolv.conf", Hosts: "testdata/etc/hosts", RealServers: l.root + "-real-servers",
	}
}

func (l *life) open() {
	pods, err := Open(context.Background(), l.options())
	if err != nil {
		l.t.Fatal(err)
	}
	l.pods = pods
}

func (l *life) end() {
	if err := l.pods.Close(context.Background()); err != nil {
		l.t.Error(err)
	}
}

// crash kills the daemon: what it still tries to do changes neither the world
// nor the disk.
func (l *life) crash() {
	after := l.world.copy()
	aside := l.root + "-aside"
	if err := os.Rename(l.root, aside); err != nil {
		l.t.Fatal(err)
	}
	close(l.world.dead) // what was blocked goes on and finds no disk
	l.end()
	os.RemoveAll(l.root)
	if err := os.Rename(aside, l.root); err != nil {
		l.t.Fatal(err)
	}
	l.world = after
}

var anyID = regexp.MustCompile(`[0-9a-f]{64}`)

// named shows names in place of ids, which are random.
func (l *life) named(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text = anyID.ReplaceAllStringFunc(text, func(id string) string {
		if name, known := l.names[id]; known {
			return name
		}
		return "<id>"
	})
	return strings.ReplaceAll(text, l.root, "<root>")
}

func (l *life) remember(name, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids[name] = id
	l.names[id] = name
}

// id gives what a name of the script stands for, or the name itself.
func (l *life) id(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id, known := l.ids[name]; known {
		return id
	}
	return name
}

func (l *life) do(words []string) string { return l.doWith(context.Background(), words) }

func (l *life) doWith(ctx context.Context, words []string) string {
	verb, args := words[0], words[1:]
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	inPod := strings.Contains(name, "/")
	switch {
	case verb == "run":
		return l.run(ctx, name, args[1:])
	case verb == "create":
		return l.create(ctx, name, args[1:])
	case verb == "start":
		return l.with(name, func(c *Container) error { return c.Start(ctx) }, "started")
	case verb == "stop" && inPod:
		grace, err := time.ParseDuration(args[1])
		if err != nil {
			l.t.Fatal(err)
		}
		began := time.Now()
		answer := l.with(name, func(c *Container) error { return c.Stop(ctx, grace) }, "stopped")
		return fmt.Sprintf("%s after %s", answer, time.Since(began))
	case verb == "remove" && inPod:
		return l.answer(name, l.pods.RemoveContainer(ctx, l.id(name)), "removed")
	case verb == "stop":
		return l.answer(name, l.pods.Stop(ctx, l.id(name)), "stopped")
	case verb == "remove":
		return l.answer(name, l.pods.Remove(ctx, l.id(name)), "removed")
	case verb == "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			l.t.Fatal(err)
		}
		l.world.exit(l.id(name), spec.Exit{Code: code, OOMKilled: slices.Contains(args, "oom")})
		return ""
	case verb == "list":
		return l.list()
	case verb == "left":
		return l.left()
	case verb == "calls":
		return l.calls(name == "sorted")
	}
	return l.control(verb, args)
}

// control are the commands about the test itself.
func (l *life) control(verb string, args []string) string {
	w := l.world
	switch verb {
	case "restart", "reboot", "crash":
		if verb == "crash" {
			l.crash()
		} else {
			l.end()
			l.world = w.copy()
		}
		if verb == "reboot" {
			l.boot++
			l.world = w.reboot()
		}
		l.seen = 0
		l.open()
	case "sleep":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			l.t.Fatal(err)
		}
		time.Sleep(d)
	case "disobey":
		w.obey = false
	case "fail":
		w.change(func() { w.fail[args[0]] = callError(strings.Join(args[1:], " ")) })
	case "mend":
		w.change(func() { delete(w.fail, args[0]) })
	case "block":
		w.change(func() { w.block[args[0]] = make(chan struct{}) })
	case "unblock":
		w.change(func() { close(w.block[args[0]]); delete(w.block, args[0]) })
	case "damage":
		l.damage(args[0], args[1])
	case "go":
		ctx, cancel := context.WithCancel(context.Background())
		j := &job{cancel: cancel, answer: make(chan string, 1)}
		l.jobs[args[0]] = j
		go func() { j.answer <- l.doWith(ctx, args[1:]) }()
	case "wait":
		return args[0] + ": " + <-l.jobs[args[0]].answer
	case "leave":
		l.jobs[args[0]].cancel()
		return args[0] + ": " + <-l.jobs[args[0]].answer
	default:
		l.t.Fatalf("unknown command %q", verb)
	}
	return ""
}

func callError(text string) error {
	switch text {
	case "not-found":
		return executeError{fs.ErrNotExist}
	case "permission":
		return executeError{fs.ErrPermission}
	case "mount-point-not-found":
		return fs.ErrNotExist
	}
	return errors.New(text)
}

// executeError is a program that could not be executed, as the executor says
// it.
type executeError struct{ error }

func (e executeError) Unwrap() error        { return e.error }
func (e executeError) Is(target error) bool { return target == spec.ErrExecute }

func (l *life) run(ctx context.Context, name string, options []string) string {
	cfg := podConfig(name)
	handler := ""
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		number, _ := strconv.Atoi(value)
		switch key {
		case "attempt":
			cfg.Metadata.Attempt = uint32(number)
			name += "." + value
		case "port":
			cfg.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: int32(number)}}
		case "hostname":
			cfg.Hostname = value
		case "shared": // processes, with our init
			cfg.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
		case "handler":
			handler = value
		default:
			l.t.Fatalf("unknown option %q", o)
		}
	}
	id, err := l.pods.Run(ctx, cfg, handler)
	if err == nil {
		l.remember(name, id)
	}
	return l.answer(name, err, "is ready")
}

func podConfig(name string) *criapi.PodSandboxConfig {
	return &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: name, Namespace: "test", Uid: "u-" + name},
		Hostname:     "host-" + name,
		LogDirectory: "/logs/" + name,
		Linux: &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
		}},
	}
}

func containerConfig(name string) *criapi.ContainerConfig {
	return &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name},
		Image:    &criapi.ImageSpec{Image: "app"},
		LogPath:  name + ".log",
		Linux: &criapi.LinuxContainerConfig{SecurityContext: &criapi.LinuxContainerSecurityContext{
			NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
		}},
	}
}

func (l *life) create(ctx context.Context, name string, options []string) string {
	pod, container, _ := strings.Cut(name, "/")
	cfg := containerConfig(container)
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "image":
			cfg.Image.Image = value
		case "attempt":
			n, _ := strconv.Atoi(value)
			cfg.Metadata.Attempt = uint32(n)
			name += "." + value
		case "volume":
			cfg.Mounts = append(cfg.Mounts, &criapi.Mount{ContainerPath: "/data", Readonly: true, Image: &criapi.ImageSpec{Image: value}})
		case "target":
			o := cfg.Linux.SecurityContext.NamespaceOptions
			o.Pid, o.TargetId = criapi.NamespaceMode_TARGET, l.id(value)
		case "log":
			cfg.LogPath = value
		default:
			l.t.Fatalf("unknown option %q", o)
		}
	}
	id, err := l.pods.Create(ctx, l.id(pod), cfg)
	if err == nil {
		l.remember(name, id)
	}
	return l.answer(name, err, "is created")
}

func (l *life) with(name string, do func(*Container) error, done string) string {
	c, err := l.pods.Container(l.id(name))
	if err == nil {
		err = do(c)
	}
	return l.answer(name, err, done)
}

func (l *life) answer(name string, err error, done string) string {
	if err == nil {
		return name + " " + done
	}
	kind := "error"
	for text, k := range map[string]error{"not found": ErrNotFound, "exists": ErrExists, "invalid": ErrInvalid,
		"precondition": ErrFailedPrecondition, "timeout": ErrTimeout, "busy": ErrBusy, "ambiguous": ErrAmbiguous} {
		if errors.Is(err, k) {
			kind = text
		}
	}
	return fmt.Sprintf("%s: %s: %v", name, kind, strings.ReplaceAll(err.Error(), "\n", " / "))
}

func (l *life) list() string {
	var lines []string
	for _, s := range l.pods.Sandboxes() {
		status := s.Status()
		state := "not ready"
		if status.Ready {
			state = fmt.Sprint("ready ", status.IPs)
		}
		if status.PID != 0 {
			state += " with an init"
		}
		lines = append(lines, l.named(s.ID)+": "+state)
	}
	for _, c := range l.pods.Containers() {
		lines = append(lines, l.named(c.ID)+": "+containerText(c.Status()))
	}
	if len(lines) == 0 {
		return "nothing"
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func containerText(s ContainerStatus) string {
	text := stateText(s.State)
	if s.State == criapi.ContainerState_CONTAINER_EXITED {
		text += fmt.Sprintf(" %d %s", s.ExitCode, s.Reason)
	}
	if s.Message != "" {
		text += fmt.Sprintf(" (%s)", s.Message)
	}
	if s.Started.IsZero() {
		return text + ", never started"
	}
	return text
}

func (l *life) left() string {
	list := append(l.world.left(), filesLeft(l.root)...)
	if len(list) == 0 {
		return "nothing left"
	}
	for i := range list {
		list[i] = l.named(list[i])
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func (l *life) calls(sorted bool) string {
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	var fresh []string
	for _, call := range l.world.calls[l.seen:] {
		fresh = append(fresh, l.named(call))
	}
	l.seen = len(l.world.calls)
	if sorted { // where several are at work at once
		slices.Sort(fresh)
	}
	return strings.Join(fresh, "\n")
}

// damage spoils a record of a pod or container.
func (l *life) damage(name, file string) {
	dir := filepath.Join(l.root, "pods", l.id(strings.Split(name, "/")[0]))
	if strings.Contains(name, "/") {
		dir = filepath.Join(dir, "containers", l.id(name))
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(`{"Version`), 0o600); err != nil {
		l.t.Fatal(err)
	}
}
