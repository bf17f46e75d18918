package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/admin"
)

func TestPullShowsEachLayerOnceInALog(t *testing.T) {
	var out bytes.Buffer
	p := &progress{out: &out}
	for _, l := range []admin.Layer{
		{Digest: "sha256:aaaabbbbccccdddd", Phase: "waiting", Total: 2_500_000},
		{Digest: "sha256:1111222233334444", Phase: "exists", Total: 100},
		{Digest: "sha256:aaaabbbbccccdddd", Phase: "downloading", Done: 1, Total: 2_500_000},
		{Digest: "sha256:aaaabbbbccccdddd", Phase: "downloading", Done: 1_000_000, Total: 2_500_000},
		{Digest: "sha256:aaaabbbbccccdddd", Phase: "done", Done: 2_500_000, Total: 2_500_000},
	} {
		p.layer(l)
	}
	want := "1111222233334  exists       100 B\n" +
		"aaaabbbbccccd  downloading  2.5 MB\n" +
		"aaaabbbbccccd  done         2.5 MB\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestPullRedrawsItsLinesOnATerminal(t *testing.T) {
	var out bytes.Buffer
	p := &progress{out: &out, live: true}
	p.layer(admin.Layer{Digest: "sha256:a", Phase: "waiting", Total: 4000})
	p.layer(admin.Layer{Digest: "sha256:b", Phase: "exists", Total: 5})
	out.Reset()
	p.layer(admin.Layer{Digest: "sha256:a", Phase: "downloading", Done: 1000, Total: 4000})
	want := "\x1b[2A" + // up to the first of the two
		"\r\x1b[Ka  downloading  [=======                       ]  1.0 kB of 4.0 kB\n" +
		"\r\x1b[Kb  exists       5 B\n"
	if out.String() != want {
		t.Errorf("got\n%q want\n%q", out.String(), want)
	}
}

func TestVerifySaysWhatIsWrongAndNothingElse(t *testing.T) {
	var sum verifySum
	var out strings.Builder
	for _, l := range []admin.VerifiedLayer{
		{Layer: "sha256:aa", Images: []string{"example.com/a:1"}, Whole: true},
		{Layer: "sha256:bb", Images: []string{"example.com/a:1", "example.com/b:1"}, Differences: []admin.Difference{
			{Path: "usr/bin/x", What: "content differs"}, {Path: "bad\nname\x1b", What: "is missing"}, {What: "index is damaged"}}, Failed: "one\ntwo"},
		{Layer: "sha256:cc", Images: []string{"example.com/a:1"}, Unknown: "not verifiable: unpacked by an older version"},
		{Layer: "sha256:dd", Images: []string{"example.com/a:1"}, Differences: []admin.Difference{{Path: "é", What: "is missing"}}, Repaired: true, Whole: true},
	} {
		sum.add(l)
		out.WriteString(verifyLines(l))
	}
	want := "layer sha256:bb of example.com/a:1, example.com/b:1\n" +
		"  usr/bin/x: content differs\n" +
		"  \"bad\\nname\\x1b\": is missing\n" +
		"  index is damaged\n" +
		"  not repaired: one; two\n" +
		"layer sha256:cc of example.com/a:1\n" +
		"  not verifiable: unpacked by an older version\n" +
		"layer sha256:dd of example.com/a:1\n" +
		"  é: is missing\n" +
		"  repaired\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if got, want := sum.String(), "4 layers: 2 whole (1 repaired), 1 damaged, 1 not verifiable"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (verifySum{layers: 1, whole: 1}).String(), "1 layer: 1 whole"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPsLine(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	pod := &criapi.PodSandbox{Metadata: &criapi.PodSandboxMetadata{Name: "pod"}}
	c := &criapi.ContainerStatus{
		Id: strings.Repeat("ab", 32), Metadata: &criapi.ContainerMetadata{Name: "web"},
		Image: &criapi.ImageSpec{Image: "sha256:77aa", UserSpecifiedImage: "example.com/web:1"}, ImageId: "sha256:77aa",
		State: criapi.ContainerState_CONTAINER_RUNNING, CreatedAt: now.Add(-3 * time.Hour).UnixNano(),
	}
	if got, want := psLine(c, pod, 42, now), "abababababab"+"a\tweb\tpod\texample.com/web:1\trunning\t3h\t42"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.State, c.ExitCode, c.Image = criapi.ContainerState_CONTAINER_EXITED, 7, &criapi.ImageSpec{Image: "sha256:77aa"}
	if got, want := psLine(c, pod, 0, now), "abababababab"+"a\tweb\tpod\t77aa\texited (7)\t3h\t-"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAgeAndSizeForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 47 * time.Hour: "47h", 50 * time.Hour: "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_962_164: "2.0 MB", 3_200_000_000: "3.2 GB"} {
		if got := byteCount(n); got != want {
			t.Errorf("byteCount(%d) = %s, want %s", n, got, want)
		}
	}
}

// The init of a pod is in the pod's PID namespace only: its other namespaces
// are those of the node, and must not be taken for the pod's.
func TestPodIsNotShownAsItsInit(t *testing.T) {
	var out strings.Builder
	pod := inspected{Kind: "pod", ID: "abc", Name: "default/web", State: "ready", IPs: []string{"10.88.0.2"}, Init: os.Getpid()}
	if err := pod.print(&out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, fmt.Sprintf("process %d, the first of the PID namespace", os.Getpid())) || strings.Contains(got, "net namespace") || strings.Contains(got, "nsenter") {
		t.Errorf("shown as\n%s", got)
	}
}
