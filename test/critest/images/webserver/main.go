// Command webserver stands in for the web servers of the upstream test images.
// The name of its file says which one it is.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
)

// masterTitle is what nginx makes of its command line, and what specs look for
// in /proc/1/cmdline.
const masterTitle = "nginx: master process nginx"

func main() {
	self, err := os.Executable()
	if err != nil {
		fail(err)
	}
	switch name := filepath.Base(self); name {
	case "nginx":
		if os.Args[0] != masterTitle {
			fail(syscall.Exec(self, []string{masterTitle}, os.Environ()))
		}
		if err := os.WriteFile("/var/run/nginx.pid", []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			fail(err)
		}
		serve(name, ":80")
	case "httpd-foreground":
		fmt.Println("httpd: resuming normal operations")
		serve("httpd", ":80")
	case "hostnet-nginx":
		serve(name, ":12003")
	default:
		fail(fmt.Errorf("no web server is called %s", name))
	}
}

func serve(name, address string) {
	// PID 1 gets only the signals it asks for.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT)
	go func() {
		<-stop
		os.Exit(0)
	}()
	fail(http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "<html><body><h1>It works! %s</h1></body></html>\n", name)
	})))
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "webserver: %v\n", err)
	os.Exit(1)
}
