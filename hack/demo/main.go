// Command demo is the program of the smallest image: one static file.
//
// Without arguments it runs as a container's main process, says hello once a
// second and ends on SIGTERM. `demo look` tells what a process inside can see.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "look" {
		look()
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	name, _ := os.Hostname()
	for count := 1; ; count++ {
		fmt.Printf("hello %d from process %d of %s\n", count, os.Getpid(), name)
		select {
		case <-stop:
			fmt.Println("goodbye")
			return
		case <-time.After(time.Second):
		}
	}
}

func look() {
	name, _ := os.Hostname()
	fmt.Printf("hostname   %s\n", name)
	fmt.Printf("process    %d, user %d, group %d\n", os.Getpid(), os.Getuid(), os.Getgid())
	cgroup, _ := os.ReadFile("/proc/self/cgroup")
	fmt.Printf("cgroup     %s\n", strings.Join(strings.Fields(string(cgroup)), " "))
	addresses, _ := net.InterfaceAddrs()
	fmt.Printf("addresses  %v\n", addresses)
	files, _ := filepath.Glob("/*")
	fmt.Printf("files      %s\n", strings.Join(files, " "))
}
