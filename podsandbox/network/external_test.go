package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/testtool"
)

// fakePlugin notes each call and does what files in its directory say.
const fakePlugin = `#!/bin/sh
d=$(dirname "$0")
cat > "$d/stdin-$CNI_COMMAND"
[ "$CNI_COMMAND" = VERSION ] && { echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}'; exit 0; }
echo "$CNI_COMMAND id=$CNI_CONTAINERID netns=$CNI_NETNS if=$CNI_IFNAME args=$CNI_ARGS" >> "$d/calls"
[ -e "$d/hang-$CNI_COMMAND" ] && { sleep 600 & echo $! > "$d/child"; wait; }
[ -e "$d/huge-$CNI_COMMAND" ] && { yes; exit 0; }
[ -e "$d/fail-$CNI_COMMAND" ] && { echo '{"code":100,"msg":"no luck","details":"today"}'; exit 1; }
[ -e "$d/noise-$CNI_COMMAND" ] && { echo 'cannot open foo' >&2; exit 3; }
[ "$CNI_COMMAND" = ADD ] || exit 0
[ -e "$d/result" ] && { cat "$d/result"; exit 0; }
echo '{"cniVersion":"1.1.0","interfaces":[{"name":"host0"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"'$CNI_NETNS'"}],
"ips":[{"address":"10.9.8.1/24","interface":0},{"address":"10.9.8.7/24","interface":1},{"address":"fd00::7/64","interface":1}]}'
`

const fakeConflist = `{"cniVersion":"1.1.0","name":"fake-net","plugins":[
{"type":"fake","capabilities":{"portMappings":true,"ipRanges":true,"cgroupPath":true,"io.kubernetes.cri.pod-annotations":true}}]}`

type cniWorld struct {
	*world
	bin string
}

func newCNIWorld(t *testing.T, mode string) *cniWorld {
	w := &cniWorld{world: newWorld(t), bin: t.TempDir()}
	w.opt.Mode, w.opt.BinDir = mode, "/nonexistent:"+w.bin
	w.opt.ConfDir = filepath.Join(t.TempDir(), "net.d")
	must(t, os.Mkdir(w.opt.ConfDir, 0o755))
	must(t, os.WriteFile(filepath.Join(w.bin, "fake"), []byte(fakePlugin), 0o755))
	return w
}

func (w *cniWorld) conf(name, text string) {
	w.t.Helper()
	must(w.t, os.WriteFile(filepath.Join(w.opt.ConfDir, name), []byte(text), 0o644))
}

func (w *cniWorld) trouble(what string) {
	w.t.Helper()
	must(w.t, os.WriteFile(filepath.Join(w.bin, what), nil, 0o644))
}

func (w *cniWorld) noTrouble(what string) { must(w.t, os.Remove(filepath.Join(w.bin, what))) }

// calls returns the calls since the last time.
func (w *cniWorld) calls() (calls []string) {
	w.t.Helper()
	path := filepath.Join(w.bin, "calls")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(w.t, err)
	must(w.t, os.Remove(path))
	for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if l != "" && !strings.HasPrefix(l, "STATUS") { // it may begin to write
			calls = append(calls, l)
		}
	}
	return calls
}

func (w *cniWorld) stdin(command string) (conf map[string]any) {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.bin, "stdin-"+command))
	must(w.t, err)
	must(w.t, json.Unmarshal(data, &conf))
	return conf
}

// wantStatus waits for the background to find out.
func (w *cniWorld) wantStatus(want string) {
	w.t.Helper()
	var err error
	for range 200 {
		err = w.net.Status()
		if want == "" && err == nil || want != "" && err != nil && strings.Contains(err.Error(), want) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Errorf("Status: %v; want %q", err, want)
}

func TestPluginsGetWhatTheSpecificationSays(t *testing.T) {
	w := newCNIWorld(t, ModeAuto)
	w.conf("10-fake.conflist", fakeConflist)
	w.open()
	w.wantStatus("")
	must(t, w.net.SetPodCIDR("10.9.0.0/16"))
	p := w.pod(PortMapping{"TCP", 80, 8080, hostIP}, PortMapping{"tcp", 81, 0, netip.Addr{}})
	p.CgroupParent, p.Annotations = "/pods/x", map[string]string{"k": "v"}
	p.NetNS = filepath.Join(t.TempDir(), "netns")
	must(t, os.Symlink(descriptor(p.NetNSFile), p.NetNS))
	res := w.setup(p)
	if want := "[10.9.8.7 fd00::7] [{eth0 02:00:00:00:00:01 }]"; fmt.Sprint(res.IPs, res.Interfaces) != want {
		t.Errorf("result %v %v; want %s", res.IPs, res.Interfaces, want)
	}
	args := " args=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-1;K8S_POD_INFRA_CONTAINER_ID=pod-1;K8S_POD_UID=uid-pod-1"
	call := "ADD id=pod-1 netns=" + p.NetNS + " if=eth0" + args
	if calls := w.calls(); len(calls) != 1 || calls[0] != call {
		t.Errorf("calls %q; want %q", calls, call)
	}
	want := `{"cgroupPath":"/pods/x","io.kubernetes.cri.pod-annotations":{"k":"v"},"ipRanges":[[{"subnet":"10.9.0.0/16"}]],` +
		`"portMappings":[{"containerPort":80,"hostIP":"192.0.2.1","hostPort":8080,"protocol":"tcp"}]}`
	if got, _ := json.Marshal(w.stdin("ADD")["runtimeConfig"]); string(got) != want {
		t.Errorf("runtimeConfig %s; want %s", got, want)
	}
	if d := w.net.Describe(); d["form"] != "cni" || d["cni"].(map[string]any)["file"] != filepath.Join(w.opt.ConfDir, "10-fake.conflist") {
		t.Errorf("Describe %v; want form cni and the file", d)
	}
	// After a restart in another mode, without the file.
	must(t, os.RemoveAll(w.opt.ConfDir))
	w.opt.Mode = ModeBuiltin
	w.open()
	if again, ok := w.net.Result(p.ID); !ok || fmt.Sprint(again) != fmt.Sprint(res) {
		t.Errorf("result after a restart %v; want %v", again, res)
	}
	// The path leads to another pod's namespace by now: plugins must not get it.
	must(t, os.Remove(p.NetNS))
	must(t, os.Symlink(descriptor(w.pod().NetNSFile), p.NetNS))
	w.teardown(Pod{ID: p.ID, NetNS: p.NetNS})
	call = "DEL id=pod-1 netns= if=eth0" + args
	if calls := w.calls(); len(calls) != 1 || calls[0] != call {
		t.Errorf("calls %q; want %q", calls, call)
	}
	if prev, _ := w.stdin("DEL")["prevResult"].(map[string]any); prev["ips"] == nil {
		t.Errorf("DEL without the cached result: %v", w.stdin("DEL"))
	}
	w.wantNothingLeft()
}

func descriptor(ns *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }

func TestFailedAddIsUndone(t *testing.T) {
	for _, c := range []struct{ trouble, want string }{
		{"fail-ADD", "plugin fake: no luck; today"},
		{"noise-ADD", `plugin fake: "cannot open foo": exit status 3`},
		{"huge-ADD", "plugin fake wrote more than 1048576 bytes and was killed"},
		{"hang-ADD", "plugin fake did not end within 500ms and was killed"},
		{`result {"cniVersion":"1.1.0"}`, "plugins returned no address for the pod"},
		{`result {`, "unexpected end of JSON input"},
		{`result {"cniVersion":"1.1.0","ips":[{"address":"10.0.0.1/8","interface":7}]}`, "plugins returned no address for the pod"},
		{`result {"cniVersion":"1.1.0","ips":[{"address":"x"}]}`, "invalid CIDR address"},
	} {
		t.Run(c.trouble, func(t *testing.T) {
			w := newCNIWorld(t, ModeCNI)
			w.conf("10-fake.conflist", fakeConflist)
			w.opt.PluginLimit = 500 * time.Millisecond
			w.open()
			name, text, _ := strings.Cut(c.trouble, " ")
			must(t, os.WriteFile(filepath.Join(w.bin, name), []byte(text), 0o644))
			p := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}})
			_, err := w.net.Setup(t.Context(), p)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "network fake-net") {
				t.Errorf("error %v; want one with %q and the network's name", err, c.want)
			}
			calls := w.calls()
			if len(calls) != 2 || !strings.HasPrefix(calls[0], "ADD ") || !strings.HasPrefix(calls[1], "DEL ") ||
				strings.TrimPrefix(calls[0], "ADD") != strings.TrimPrefix(calls[1], "DEL") {
				t.Errorf("calls %q; want ADD and DEL with the same arguments", calls)
			}
			if child, err := os.ReadFile(filepath.Join(w.bin, "child")); err == nil {
				var pid int
				fmt.Sscan(string(child), &pid)
				if !gone(pid) {
					t.Errorf("process %d, which the killed plugin started, still runs", pid)
				}
			}
			w.wantNothingLeft()
		})
	}
}

func gone(pid int) bool {
	for range 40 {
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(state), ") Z ") {
			return true
		}
		time.Sleep(25 * time.Millisecond)
	}
	unix.Kill(pid, unix.SIGKILL)
	return false
}

// A plugin that refuses to disconnect holds the pod's end up for a while, not
// for ever, and is asked again later.
func TestRefusedDelIsOwed(t *testing.T) {
	w := newCNIWorld(t, ModeCNI)
	w.conf("10-fake.conflist", fakeConflist)
	w.open()
	p := w.pod()
	w.setup(p)
	w.trouble("fail-DEL")
	for i := range patience {
		err := w.net.Teardown(t.Context(), p)
		if last := i == patience-1; last != (err == nil) {
			t.Errorf("Teardown %d: %v", i+1, err)
		}
	}
	if err := w.net.Collect(nil); err == nil || !strings.Contains(err.Error(), "plugin fake: no luck") {
		t.Errorf("Collect while the plugin refuses: %v; want the plugin's words", err)
	}
	w.open() // the debt survives
	w.noTrouble("fail-DEL")
	w.calls()
	must(t, w.net.Collect([]string{p.ID}))
	if calls := w.calls(); len(calls) == 0 || !strings.HasPrefix(calls[0], "DEL id=pod-1 ") {
		t.Errorf("calls %q; want DEL", calls)
	}
	w.wantNothingLeft()
}

// So does one that refuses to undo a failed ADD, and the host port is not free
// before it did.
func TestRefusedUndoIsOwed(t *testing.T) {
	w := newCNIWorld(t, ModeCNI)
	w.conf("10-fake.conflist", fakeConflist)
	w.open()
	w.trouble("fail-ADD")
	w.trouble("fail-DEL")
	p, q := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}}), w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}})
	if _, err := w.net.Setup(t.Context(), p); err == nil || strings.Count(err.Error(), "no luck") != 2 {
		t.Errorf("Setup: %v; want both failures", err)
	}
	if _, ok := w.net.Result(p.ID); ok {
		t.Error("there is a result of a failed Setup")
	}
	w.noTrouble("fail-ADD")
	if _, err := w.net.Setup(t.Context(), q); err == nil || !strings.Contains(err.Error(), "tcp port 8080 is taken by pod default/pod-1") {
		t.Errorf("Setup: %v; want that the port is taken", err)
	}
	w.noTrouble("fail-DEL")
	must(t, w.net.Collect(nil))
	w.wantNothingLeft()
	w.setup(q)
	w.teardown(q)
	w.wantNothingLeft()
}

func TestSetupKilledBeforeAddEndedIsCollected(t *testing.T) {
	w := newCNIWorld(t, ModeCNI)
	w.conf("10-fake.conflist", fakeConflist)
	w.open()
	list, err := w.net.external.dir.Current()
	must(t, err)
	a := list.Intend("pod-9", "/proc/1/fd/999", "", [][2]string{{"IgnoreUnknown", "1"}}, nil)
	must(t, w.net.records.save(record{ID: "pod-9", Form: formCNI, CNI: a}))
	w.open()
	if _, ok := w.net.Result("pod-9"); ok {
		t.Error("there is a result of an ADD that did not end")
	}
	p := w.pod()
	w.setup(p)
	w.calls()
	must(t, w.net.Collect([]string{p.ID}))
	calls := w.calls()
	if len(calls) != 2 || calls[0] != "DEL id=pod-9 netns= if=eth0 args=IgnoreUnknown=1" || !strings.HasPrefix(calls[1], "GC ") {
		t.Errorf("calls %q; want DEL for the lost pod and GC", calls)
	}
	if got, _ := json.Marshal(w.stdin("GC")["cni.dev/valid-attachments"]); string(got) != `[{"containerID":"pod-1","ifname":"eth0"}]` {
		t.Errorf("GC with valid attachments %s; want the living pod only", got)
	}
	w.teardown(p)
	w.wantNothingLeft()
}

func TestStatusSaysWhatIsWrong(t *testing.T) {
	w := newCNIWorld(t, ModeCNI)
	w.open()
	w.wantStatus("no network configuration in " + w.opt.ConfDir)
	if _, err := w.net.Setup(t.Context(), w.pod()); err == nil || !strings.Contains(err.Error(), "no network configuration in "+w.opt.ConfDir) {
		t.Errorf("Setup: %v; want that there is no configuration", err)
	}
	w.conf("10-bad.conflist", "{")
	w.wantStatus("10-bad.conflist: unexpected end of JSON input")
	w.conf("20-empty.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[]}`)
	w.wantStatus("20-empty.conflist: error parsing configuration list: no plugins in list")
	w.conf("30-missing.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"nosuch"}]}`)
	w.wantStatus("30-missing.conflist: plugin nosuch not found in /nonexistent, " + w.bin)
	if _, err := w.net.Setup(t.Context(), w.pod()); err == nil || !strings.Contains(err.Error(), "plugin nosuch not found in /nonexistent, "+w.bin) {
		t.Errorf("Setup: %v; want the missing plugin's name", err)
	}
	w.conf("25-ipam.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"fake","ipam":{"type":"noipam"}}]}`)
	w.wantStatus("25-ipam.conflist: plugin noipam not found")
	w.conf("15-old.conf", `{"cniVersion":"1.0.0","name":"single","type":"fake"}`)
	w.wantStatus("")
	w.conf("12-status.json", fakeConflist)
	w.trouble("fail-STATUS")
	w.wantStatus("12-status.json: plugin fake: no luck; today")
	w.noTrouble("fail-STATUS")
	w.wantStatus("")
}

func TestConflistIsSeenHoweverItAppears(t *testing.T) {
	w := newCNIWorld(t, ModeAuto)
	w.open()
	w.wantStatus("")
	builtin := w.pod()
	w.setup(builtin)
	wantForm := func(want string) {
		t.Helper()
		for range 60 { // well below the time between two looks without a watch
			if w.net.Describe()["form"] == want {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("form %v; want %s", w.net.Describe()["form"], want)
	}
	wantForm("builtin")
	w.conf("10-fake.conflist", fakeConflist)
	wantForm("cni")
	p := w.pod()
	w.setup(p)
	if calls := w.calls(); len(calls) != 1 {
		t.Errorf("calls %q; want one ADD", calls)
	}
	t.Run("directory replaced", func(t *testing.T) {
		must(t, os.Rename(w.opt.ConfDir, w.opt.ConfDir+".old"))
		wantForm("builtin")
		must(t, os.Mkdir(w.opt.ConfDir, 0o755))
		w.conf("10-fake.conflist.tmp", fakeConflist)
		must(t, os.Rename(filepath.Join(w.opt.ConfDir, "10-fake.conflist.tmp"), filepath.Join(w.opt.ConfDir, "10-fake.conflist")))
		wantForm("cni")
		w.conf("10-fake.conflist", "{}")
		w.wantStatus("10-fake.conflist: error parsing configuration list: no name")
		must(t, os.RemoveAll(w.opt.ConfDir))
		wantForm("builtin")
	})
	// Each pod ends by the form that made it.
	w.teardown(p)
	if calls := w.calls(); len(calls) != 1 || !strings.HasPrefix(calls[0], "DEL id=pod-2 ") {
		t.Errorf("calls %q; want one DEL", calls)
	}
	w.conf2("10-fake.conflist", fakeConflist)
	wantForm("cni")
	w.teardown(builtin)
	builtin.NetNSFile.Close()
	if calls := w.calls(); len(calls) != 0 {
		t.Errorf("calls %q for a pod of the built-in form", calls)
	}
	w.wantNothingLeft()
}

func (w *cniWorld) conf2(name, text string) {
	must(w.t, os.MkdirAll(w.opt.ConfDir, 0o755))
	w.conf(name, text)
}

func TestRealPluginsConnectAPod(t *testing.T) {
	for _, plugin := range []string{"bridge", "host-local"} {
		testtool.Need(t, "/usr/lib/cni/"+plugin, "containernetworking-plugins")
	}
	w := newCNIWorld(t, ModeAuto)
	w.opt.BinDir = "/usr/lib/cni"
	data := t.TempDir()
	w.conf("10-real.conflist", `{"cniVersion":"1.0.0","name":"real","plugins":[{"type":"bridge","bridge":"real0","isGateway":true,
		"ipam":{"type":"host-local","dataDir":"`+data+`","ranges":[[{"subnet":"10.77.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`)
	w.open()
	w.wantStatus("")
	a, b := w.pod(), w.pod()
	w.setup(a)
	resB := w.setup(b)
	serve(t, b.NetNSFile, "b", 80)
	wantAnswer(t, a.NetNSFile, "tcp", resB.IPs[0], 80, "b 10.77.0.2")
	wantAnswer(t, w.host, "tcp", resB.IPs[0], 80, "b 10.77.0.1")
	w.teardown(a)
	must(t, b.NetNSFile.Close())
	w.teardown(Pod{ID: b.ID})
	leases, err := filepath.Glob(data + "/real/10.*")
	if err != nil || len(leases) != 0 {
		t.Errorf("leases %v, %v; want none", leases, err)
	}
	w.wantNothingLeft()
}

func TestNamesCannotInjectPluginArguments(t *testing.T) {
	w := newCNIWorld(t, ModeCNI)
	w.conf("10-fake.conflist", fakeConflist)
	w.open()
	p := w.pod()
	p.Name = "x;K8S_POD_NAMESPACE=kube-system"
	if _, err := w.net.Setup(t.Context(), p); err == nil || !strings.Contains(err.Error(), `K8S_POD_NAME: "x;K8S_POD_NAMESPACE=kube-system"`) {
		t.Errorf("Setup: %v; want an error that quotes the name", err)
	}
	if calls := w.calls(); len(calls) != 0 {
		t.Errorf("calls %q; want none", calls)
	}
	w.wantNothingLeft()
}
