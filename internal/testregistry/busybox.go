package testregistry

import (
	"archive/tar"
	"debug/elf"
	"os"
	"strings"

	"cri-mini/internal/testtool"
)

// applets are the commands of busybox that the layer has.
const applets = "sh cat sleep echo ls id ps head nc wget httpd true false mkdir ln mv rm touch stat stty printf test seq mount kill readlink env tr wc dd df tty hostname"

// Accounts is the /etc/passwd of the layer.
const Accounts = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"

// Busybox makes a layer with the static busybox of this machine. The error is
// *testtool.Missing when there is none.
func Busybox() (Layer, error) {
	path, err := testtool.Find("busybox", "busybox-static")
	if err != nil {
		return Layer{}, err
	}
	binary, err := elf.Open(path)
	if err != nil {
		return Layer{}, err
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP { // it needs libraries that the image has not
			return Layer{}, &testtool.Missing{Tool: "static busybox", Package: "busybox-static"}
		}
	}
	shell, err := os.ReadFile(path)
	if err != nil {
		return Layer{}, err
	}
	layer := Layer{Files: []File{
		{Name: "bin/"}, {Name: "etc/"}, {Name: "home/"}, {Name: "tmp/", Mode: 0o1777},
		{Name: "etc/passwd", Data: Accounts},
		{Name: "etc/group", Data: "root:x:0:\nuser:x:1000:\n"},
		{Name: "etc/motd", Data: "hello"},
		Program("bin/busybox", shell),
	}}
	for applet := range strings.FieldsSeq(applets) {
		layer.Files = append(layer.Files, File{Name: "bin/" + applet, Type: tar.TypeLink, Link: "bin/busybox"})
	}
	return layer, nil
}
