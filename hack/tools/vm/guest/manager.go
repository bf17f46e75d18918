package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"cri-mini/hack/tools/vm/wire"
)

// serviceArgument says that this program is a service of the first one.
const serviceArgument = "service"

// wantedManager is the first program that the one outside wants; empty for us.
func wantedManager() (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(line)) {
		if name, ok := strings.CutPrefix(word, wire.InitArgument); ok {
			return name, nil
		}
	}
	return "", nil
}

// Units that are all systemd starts: the bus, and this program again. It is
// delegated to, for tests make groups below their own.
var units = map[string]string{
	"vm.target": "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nRequires=dbus.socket vm.service\n",
	"vm.service": `[Unit]
DefaultDependencies=no
Requires=dbus.service
After=dbus.service
[Service]
ExecStart=` + serviceProgram + " " + serviceArgument + `
Delegate=yes
OOMPolicy=continue
LimitNOFILE=1048576
TasksMax=infinity
StandardOutput=null
StandardError=null
`,
	"dbus.service.d/early.conf": "[Unit]\nDefaultDependencies=no\n",
	"dbus.socket.d/early.conf":  "[Unit]\nDefaultDependencies=no\n",
}

const (
	serviceProgram = "/run/vm-guest"
	unitsDir       = "/run/systemd/system/"
)

// becomeManager executes systemd in our place. What is mounted it leaves alone.
func becomeManager(name string) error {
	if name != "systemd" {
		return fmt.Errorf("first program %q: not systemd", name)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(serviceProgram, program, 0o755); err != nil {
		return err
	}
	for unit, text := range units {
		dir, _, nested := strings.Cut(unit, "/")
		if !nested {
			dir = ""
		}
		if err := os.MkdirAll(unitsDir+dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(unitsDir+unit, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return fmt.Errorf("execute systemd: %w", syscall.Exec("/usr/lib/systemd/systemd", []string{"systemd", "--unit=vm.target", "--log-target=console"}, []string{"PATH=" + path}))
}
