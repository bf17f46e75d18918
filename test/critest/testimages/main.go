// Command testimages serves the images of the upstream suite until it is
// interrupted, to pull them by hand.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"cri-mini/test/critest/internal/registry"
	"cri-mini/test/critest/internal/testimage"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:5000", "`address` to serve at")
	hosts := flag.String("registry-config-dir", "", "`directory` to write a mirror for every host in, for cri-mini serve's flag of that name")
	login := flag.String("login", "", "`user:password` to ask for")
	secure := flag.Bool("tls", false, "serve HTTPS by a new certificate; needs -registry-config-dir, where its authority goes")
	flag.Parse()
	if err := run(*listen, *hosts, *login, *secure); err != nil {
		fmt.Fprintf(os.Stderr, "testimages: %v\n", err)
		os.Exit(1)
	}
}

func run(listen, hosts, login string, secure bool) error {
	repository, err := testimage.Repository()
	if err != nil {
		return err
	}
	images, err := testimage.BuildAll(repository)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	handler := &registry.Handler{Images: images}
	handler.User, handler.Password, _ = strings.Cut(login, ":")
	server := &http.Server{Handler: handler}
	url := "http://" + listener.Addr().String()
	authority := ""
	if secure {
		url = "https://" + listener.Addr().String()
		authority = filepath.Join(hosts, "authority.pem")
		if server.TLSConfig, err = registry.NewCertificate(listener.Addr(), authority); err != nil {
			return err
		}
	}
	if hosts != "" {
		if err := registry.WriteMirror(hosts, url, authority); err != nil {
			return err
		}
	}
	describe(images, url)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	if secure {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

func describe(images *testimage.Set, url string) {
	fmt.Printf("serving at %s, below any repository path:\n", url)
	var lines []string
	for tag, digest := range images.Tags {
		lines = append(lines, fmt.Sprintf("  %-42s %s", tag, digest))
	}
	slices.Sort(lines)
	fmt.Println(strings.Join(lines, "\n"))
}
