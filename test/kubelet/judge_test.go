package kubelet

import (
	"iter"
	"os"
	"regexp"
	"strings"
)

// usual are errors that come from how the kubelet is run here, or that it has
// with any runtime. Each says why.
var usual = []struct{ pattern, why string }{
	// How the kubelet is run here.
	{`"Failed to set some node status fields" err="can't get ip address of node`, "the enclosure has no network but loopback"},
	{"failed to apply oom score -999", "a machine that does not let root lower it"},
	{"failed to check if node is newer", "a kubelet without an API server has a node without a version"},
	{"Failed to get system UUID: open /etc/machine-id", "a machine that nobody has installed has no id"},
	{`"Failed to get system container stats".* containerName="/(tests|system.slice/vm.service)"`, "the kubelet's own eyes find a group later than it asks for it, here that of the tests"},
	{"Housekeeping took longer than expected", "a machine that is slow or busy"},
	{"Eviction manager: (cannot evict a critical pod|eviction thresholds have been met, but no pods are active to evict)", "a disk that is never free enough, and static pods"},
	{"(failed to delete cgroup paths for .*Timed out while waiting for systemd to remove|cgroups exist and are correctly applied: .*Timeout waiting for systemd to create)", "systemd makes and ends many slices at once on a machine that is slow or busy; the kubelet asks again"},

	// What the tests have fail.
	{"back-off .* restarting failed container=main pod=always-node", "a pod that fails on purpose"},
	{`("Allocated pod resize is not currently feasible"|"Error syncing pod, skipping").*cannot decrease memory limits`, "a limit below what is in use"},
	{"execute /no/such/program: executable file not found", "a container that fails on purpose"},

	// What the kubelet says at each of its starts.
	{"Skipping pod synchronization.*(pleg has yet to be successful|may not have completed yet)", "before the first list of pods"},
	{"Image garbage collection failed once. Stats initialization may not have completed yet", "before the first statistics"},
	{"Failed to read data from checkpoint.*kubelet_internal_checkpoint", "the first start of all, with no devices"},
	{`("Unable to access cache records about image pulls"|"Error migrating image pulled records").*Object 'Kind' is missing in ''`, "files of its own that were not on the disk when the power went"},
	{"failed to check if we have separate container filesystem", "the kubelet knows the labels of two runtimes by name"},
	{`("Error getting the current node from lister"|"Unable to register mirror pod because node is not registered yet").*node \\"[^"]*\\" not found`, "pods are begun before the node is registered with an API server"},
	{`PodSandbox from runtime service failed.*podSandboxID=""`, "asked without a pod, to learn whether there is such a call"},

	// Two parts of the kubelet that know different things, with any runtime.
	{"from runtime service failed.*context canceled", "the kubelet gives up what it asked: it ends, or the file of a pod changed"},
	{"Error on socket receive.*use of closed network connection", "the kubelet still reads from a WebSocket that it has closed"},
	{`"Error proxying data from client to backend" err="readfrom [^:]*:[^:]*:\d+: read tcp 127\.0\.0\.1:20250->\S+: read: connection reset by peer"`, "a client of the kubelet leaves without having read everything"},
	{`"Copying (stdout|stderr) failed" err="use of closed network connection"`, "a client of an attach leaves; the kubelet closes its own connection to the runtime while it still copies from it"},
	{"Partial failure issuing cadvisor.ContainerInfoV2", "the kubelet's own eyes find a group later than it asks for it, or after its end"},
	{`Could not get metadata.*/manifests/[^/]*: no such file`, "the kubelet looks at the file of a pod that is taken away meanwhile"},
	{"Unable to process watch event.*(doesn't exist in cache|/manifests/.*no such file)", "the kubelet sees the end of a file by its watch and by its list"},
	{`(ContainerStatus|RemoveContainer|ReopenContainerLog) from runtime service failed.*code = NotFound`, "the kubelet asks for a container that another part of it has just removed"},
	{`"(Image garbage collection failed multiple times in a row|Failed to get container status|Failed to remove container|Container garbage collection failed|Failed to rotate log for container|Container log doesn't exist, reopen container log failed)".*code = NotFound`, "the same"},
	{"(ReopenContainerLog|Failed to rotate log for container|reopen container log failed).*not possible in this state: it is exited", "the kubelet rotates the log of a container that has just ended"},
	{`"failed to read (memory|cpu) cgroup (limits|config) for the pod".*no such file`, "the kubelet looks at its group of a pod that it has just removed"},
	{"Failed to remove container log dead symlink.*no such file", "two parts of the kubelet remove the same link"},
	{`creating termination-log file.*no such file|CreateContainer.*` + lostFolder,
		"of a pod whose file is gone the kubelet removes the folder while it still starts a container that has just ended"},
}

// lostFolder is how a call fails for which the kubelet has removed what it names.
const lostFolder = `host_path \\*"[^"]*/kubelet/pods/[0-9a-f-]+/etc-hosts\\*": no such file or directory`

// parting is said by a kubelet that was told to end, of all it was at.
var parting = regexp.MustCompile("context canceled|broadcaster already stopped")

// judgeLogs fails the test for what the kubelet or the daemon complains about,
// and tells what it passed over.
func (n *node) judgeLogs() {
	n.t.Helper()
	passed := map[string]int{}
	judge := func(p *process, complains func(string) bool) {
		for at, line := range n.lines(p.log) {
			away := n.daemonAway && strings.Contains(line, "code = Unavailable")
			if !complains(line) || away || p.ending(at) && parting.MatchString(line) {
				continue
			}
			if i := indexOfUsual(line); i >= 0 {
				passed[usual[i].pattern]++
			} else {
				n.t.Errorf("the %s says: %s", p.name, line)
			}
		}
	}
	judge(n.kubelet, func(line string) bool { return strings.HasPrefix(line, "E") })
	judge(n.daemon, func(line string) bool {
		return strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN")
	})
	for pattern, count := range passed {
		n.t.Logf("usual, %d times: %s", count, pattern)
	}
}

func indexOfUsual(line string) int {
	for i, u := range usual {
		if regexp.MustCompile(u.pattern).MatchString(line) {
			return i
		}
	}
	return -1
}

// lines are those of a file with the position of each.
func (n *node) lines(path string) iter.Seq2[int64, string] {
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Error(err)
	}
	return func(yield func(int64, string) bool) {
		at := int64(0)
		for line := range strings.Lines(string(text)) {
			if !yield(at, strings.TrimRight(line, "\n")) {
				return
			}
			at += int64(len(line))
		}
	}
}

// size is how much a process has said.
func (p *process) size() int64 {
	info, err := os.Stat(p.log)
	if err != nil {
		p.t.Error(err)
		return 0
	}
	return info.Size()
}

// ending tells whether what is at a position of the log was said by a process
// that had been told to end.
func (p *process) ending(at int64) bool {
	for _, e := range p.endings {
		if e[0] <= at && at < e[1] {
			return true
		}
	}
	return false
}
