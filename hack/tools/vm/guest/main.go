// Command guest is the first process of the virtual machine of hack/vm.
//
// It starts from the initial file system in memory, loads the modules that reach
// the disks, changes to the root file system, mounts what a node has mounted,
// and then runs one command for the program outside (see package wire). It never
// ends: the program outside ends the machine. If it does end, the kernel panics,
// which outside is seen as well.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cri-mini/hack/tools/vm/wire"
)

func main() {
	start := boot
	if len(os.Args) == 2 && os.Args[1] == serviceArgument {
		start = func() (*port, error) { return openPort(wire.Port) }
	}
	p, err := start()
	if err == nil {
		err = p.serve()
	}
	if err != nil {
		fmt.Println("guest:", err) // to the console
		os.Exit(1)
	}
	for {
		time.Sleep(time.Hour)
	}
}

// boot returns the port when everything is in place.
func boot() (*port, error) {
	if err := mountAll(early); err != nil {
		return nil, err
	}
	if err := loadModules("/modules"); err != nil {
		return nil, err
	}
	if err := changeRoot(rootDisk); err != nil {
		return nil, err
	}
	if err := mountAll(late); err != nil {
		return nil, err
	}
	if err := settle(); err != nil {
		return nil, err
	}
	if manager, err := wantedManager(); err != nil || manager != "" {
		return nil, errors.Join(err, becomeManager(manager)) // it returns only with an error
	}
	return openPort(wire.Port)
}

// serve answers the one request. The error is that of the port.
func (p *port) serve() error {
	if err := p.send(wire.Report{Ready: true}); err != nil {
		return err
	}
	var request wire.Request
	if err := json.NewDecoder(p.file).Decode(&request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	status, err := p.answer(request)
	if err != nil {
		return p.send(wire.Report{Error: err.Error()})
	}
	return p.send(wire.Report{Ended: true, Status: status})
}

func (p *port) answer(request wire.Request) (int, error) {
	if err := unpack(inDisk, wire.In); err != nil {
		return 0, fmt.Errorf("unpack the payload: %w", err)
	}
	if request.Disk {
		if err := mountAll([]mount{{kind: "ext4", source: keptDisk, path: wire.Disk}}); err != nil {
			return 0, err
		}
	}
	status, err := p.run(request)
	if err == nil && request.Out {
		err = pack(outDisk, wire.Out)
	}
	return status, err
}

// openPort finds a serial port by the name that the program outside gave it.
func openPort(name string) (*port, error) {
	const class = "/sys/class/virtio-ports"
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		names, _ := filepath.Glob(class + "/*/name")
		for _, file := range names {
			text, _ := os.ReadFile(file)
			if strings.TrimSpace(string(text)) == name {
				file, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
				return &port{file: file}, err
			}
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("serial port %s: none of %q", name, names)
		}
	}
}

func (p *port) send(report wire.Report) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return json.NewEncoder(p.file).Encode(report)
}
