package main

import (
	"reflect"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPodFlagsBecomeConfigs(t *testing.T) {
	t.Setenv("OURS", "kept")
	f := podFlags{
		Name: "web", Volume: []string{"/data:/srv:ro"}, Env: []string{"A=b=c", "OURS"}, User: "1000:50",
		Memory: "64M", Publish: []string{"8080:80", "127.0.0.1:53:5353/udp", "[::1]:1:2"},
	}
	pod, container, err := f.configs("example.com/x", []string{"a", "b"}, true, false)
	if err != nil {
		t.Fatal(err)
	}
	security := container.Linux.SecurityContext
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"host name", pod.Hostname, "web"},
		{"mount", container.Mounts[0], &criapi.Mount{HostPath: "/data", ContainerPath: "/srv", Readonly: true}},
		{"first variable", string(container.Envs[0].Value), "b=c"},
		{"our variable", string(container.Envs[1].Value), "kept"},
		{"user", security.RunAsUser.Value, int64(1000)},
		{"group", security.RunAsGroup.Value, int64(50)},
		{"memory", container.Linux.Resources.MemoryLimitInBytes, int64(64 << 20)},
		{"port", pod.PortMappings[0], &criapi.PortMapping{HostPort: 8080, ContainerPort: 80}},
		{"udp port", pod.PortMappings[1], &criapi.PortMapping{Protocol: criapi.Protocol_UDP, HostPort: 53, ContainerPort: 5353, HostIp: "127.0.0.1"}},
		{"port on IPv6", pod.PortMappings[2].HostIp, "::1"},
		{"arguments for the image's entrypoint", container.Args, []string{"a", "b"}},
		{"PID namespace", security.NamespaceOptions.Pid, criapi.NamespaceMode_POD},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestBadFlagsAreNamedWithTheirValue(t *testing.T) {
	for _, c := range []struct {
		flags podFlags
		want  string
	}{
		{podFlags{Volume: []string{"/only"}}, `--volume "/only"`},
		{podFlags{Volume: []string{"/a:relative"}}, `--volume "/a:relative"`},
		{podFlags{Volume: []string{"/a:/b:rx"}}, `"rx"`},
		{podFlags{Publish: []string{"80"}}, `--publish "80"`},
		{podFlags{Publish: []string{"80:0"}}, `port "0"`},
		{podFlags{Publish: []string{"70000:80"}}, `port "70000"`},
		{podFlags{Publish: []string{"localhost:80:80"}}, `address "localhost"`},
		{podFlags{Publish: []string{"80:80/icmp"}}, `protocol "icmp"`},
		{podFlags{Memory: "lots"}, `--memory "lots"`},
		{podFlags{Memory: "-5"}, `--memory "-5"`},
		{podFlags{Memory: "99999999999T"}, `--memory "99999999999T"`},
		{podFlags{User: "me:mine"}, `--user "me:mine"`},
		{podFlags{User: ":5"}, `--user ":5"`},
	} {
		_, _, err := c.flags.configs("x", nil, false, false)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want it to contain %s", c.flags, err, c.want)
		}
	}
}

func TestRunFindsImageAndCommand(t *testing.T) {
	for _, c := range []struct {
		rootfs  string
		words   []string
		image   string
		command []string
	}{
		{"", []string{"img"}, "img", []string{}},
		{"", []string{"img", "ls", "-l"}, "img", []string{"ls", "-l"}},
		{"", []string{"img", "--", "ls"}, "img", []string{"ls"}},
		{"/r", []string{"--", "/bin/sh"}, "", []string{"/bin/sh"}},
		{"/r", []string{"/bin/sh"}, "", []string{"/bin/sh"}},
	} {
		image, command, err := (&runCmd{Rootfs: c.rootfs, Words: c.words}).split()
		if err != nil || image != c.image || !reflect.DeepEqual(command, c.command) {
			t.Errorf("%q %q: image %q, command %q, %v", c.rootfs, c.words, image, command, err)
		}
	}
}
