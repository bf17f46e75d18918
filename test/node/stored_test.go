package node

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// serviceManager does for the daemon what systemd does with FileDescriptorStoreMax=:
// it keeps what it is sent, and gives all of it to the next one.
type serviceManager struct {
	t      *testing.T
	socket *net.UnixConn

	mu    sync.Mutex // guards what follows
	kept  map[string]*os.File
	twice []string // names that were stored again
}

func newServiceManager(t *testing.T, path string) *serviceManager {
	t.Helper()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &serviceManager{t: t, socket: socket, kept: map[string]*os.File{}}
	ended := make(chan struct{})
	go func() { defer close(ended); m.listen() }()
	t.Cleanup(func() {
		socket.Close()
		<-ended
		for _, f := range m.kept {
			f.Close()
		}
	})
	return m
}

func (m *serviceManager) listen() {
	text, control := make([]byte, 4096), make([]byte, 4096)
	for {
		n, used, _, _, err := m.socket.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		var files []int
		messages, err := unix.ParseSocketControlMessage(control[:used])
		for i := range messages {
			rights, bad := unix.ParseUnixRights(&messages[i])
			if bad != nil {
				err = bad
			}
			files = append(files, rights...)
		}
		if err != nil {
			m.t.Error(err)
		}
		m.hear(string(text[:n]), files)
	}
}

func (m *serviceManager) hear(text string, files []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	said := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		said[key] = value
	}
	name := said["FDNAME"]
	switch {
	case said["FDSTORE"] == "1":
		if len(files) != 1 || said["FDPOLL"] != "0" || name == "" || strings.ContainsRune(name, ':') {
			m.t.Errorf("the service manager is told %q with %d descriptors", text, len(files))
			return
		}
		if old := m.kept[name]; old != nil {
			m.twice = append(m.twice, name)
			old.Close()
		}
		unix.CloseOnExec(files[0])
		m.kept[name] = os.NewFile(uintptr(files[0]), name)
	case said["FDSTOREREMOVE"] == "1":
		m.kept[name].Close() // nil where there is none
		delete(m.kept, name)
	}
}

// start starts a command as a service. What it is given nobody closes meanwhile.
func (m *serviceManager) start(cmd *exec.Cmd) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name, f := range m.kept {
		names = append(names, name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	// None in the place of what we have by accident: it would be counted, now
	// and not when another is there.
	for len(cmd.ExtraFiles) < 64 {
		cmd.ExtraFiles = append(cmd.ExtraFiles, nil)
	}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.socket.LocalAddr().String(), "FDSTORE=1000",
		fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	// The number of the process is known in it only.
	cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return cmd.Start()
}

func (m *serviceManager) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.kept)
}

func (m *serviceManager) storedTwice() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.twice
}

// Where the service manager keeps descriptors, the death of both is no more than
// that of a monitor.
func TestDeathOfDaemonAndMonitorEndsNothingWhereDescriptorsAreStored(t *testing.T) {
	d := startOn(t, func(d *daemon) { d.manager = newServiceManager(t, filepath.Join(d.state, "notify")) })
	d.pull(shell)
	check := d.unchanged()
	eventually(t, "nothing is stored", func() bool { return d.manager.count() == 0 })
	beside := d.startBeside()
	p := d.runPod("victims")
	ended := p.run(containerConfig("ended", "sh", "-c", "exit 44"))
	ended.exited()
	// Three pods, their containers, an init.
	eventually(t, "all is stored", func() bool { return d.manager.count() == 3+5+1 })
	for n := range 3 {
		victim := p.run(containerConfig(fmt.Sprint("victim", n), "sleep", "1000"))
		stored := d.manager.count()
		eventually(t, "it is stored", func() bool { stored = d.manager.count(); return stored == 3+6+1 })
		pid, monitor := victim.pid(), d.monitor()
		d.kill()
		if err := killProcess(monitor); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the monitor is dead", func() bool { return !alive(monitor) })
		if err := killProcess(pid); err != nil {
			t.Fatal(err)
		}
		d.serve()
		beside.unharmed(1)
		if s := victim.exited(); s.ExitCode != 137 {
			t.Errorf("what died meanwhile: exit code %d (%s %s), want 137", s.ExitCode, s.Reason, s.Message)
		}
		if s := ended.status(); s.ExitCode != 44 || s.State != criapi.ContainerState_CONTAINER_EXITED {
			t.Errorf("what had ended before: %s, %d, want 44", s.State, s.ExitCode)
		}
		if got := beside.all[3].exec("echo", "again"); got != "again\n" {
			t.Errorf("exec: %q", got)
		}
		victim.remove()
		// A restart changes nothing of what is stored, nor a monitor that dies.
		d.restart()
		d.killMonitor()
		beside.unharmed(1)
		eventually(t, "stored is what runs", func() bool { return d.manager.count() == 3+5+1 })
	}
	beside.end(true)
	p.remove()
	eventually(t, "nothing is stored", func() bool { return d.manager.count() == 0 })
	if twice := d.manager.storedTwice(); len(twice) > 0 {
		t.Errorf("stored twice: %v", twice)
	}
	t.Log(beside)
	check()
}
