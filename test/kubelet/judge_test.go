package kubelet

import (
	"os"
	"regexp"
	"strings"
)

// usual are errors that come from how the kubelet is run here, or that it has
// with any runtime. Each says why.
var usual = []struct{ pattern, why string }{
	{"Skipping pod synchronization.*(pleg has yet to be successful|may not have completed yet)", "said at every start, before the first list of pods"},
	{"Image garbage collection failed once", "said at every start, before the first statistics"},
	{"can't get ip address of node", "the enclosure has no network but loopback"},
	{"Failed to read data from checkpoint.*kubelet_internal_checkpoint", "a kubelet that starts for the first time, with no devices"},
	{"failed to check if we have separate container filesystem", "the kubelet knows the labels of two runtimes by name"},
	{"failed to apply oom score -999", "a machine that does not let root lower it"},
	{"failed to check if node is newer", "a kubelet without an API server has a node without a version"},
	{"from runtime service failed.*context canceled", "the kubelet gives up what it asked: it ends, or the file of a pod changed"},
	{"back-off .* restarting failed container=main pod=always-node", "a pod that fails on purpose"},
	{"execute /no/such/program: executable file not found", "a container that fails on purpose"},
	{`PodSandbox from runtime service failed.*podSandboxID=""`, "asked at the start, to learn whether there is such a call"},
	{"Error on socket receive.*use of closed network connection", "the kubelet still reads from a WebSocket that it has closed"},
	{"(Failed to remove sandbox|Failed to stop sandbox before removing|Error listing containers|Failed cleaning pods).*context canceled", "the same"},
	{"Partial failure issuing cadvisor.ContainerInfoV2", "the kubelet's own eyes find a group later than it asks for it, or after its end"},
	{"Failed to get system container stats.*/tests", "the same, for the group of the tests"},
	{"Could not get metadata.*no such file", "the kubelet looks at the file of a pod that is taken away meanwhile"},
	{"Failed to get system UUID: open /etc/machine-id", "a machine that nobody has installed has no id"},
	{"Housekeeping took longer than expected", "a machine that is slow or busy"},
	{"Unable to process watch event.*(doesn't exist in cache|no such file)", "the kubelet sees the end of a file by its watch and by its list"},
	{"cannot evict a critical pod|no pods are active to evict", "a disk that is never free enough, and static pods"},
	{"(Failed to get container status|Failed to remove container|reopen container log failed).*not found", "the kubelet looks at a container that another part of it has just removed"},
	{"ReopenContainerLog from runtime service failed.*not found", "the same"},
	{"(ReopenContainerLog|Failed to rotate log for container).*not possible in this state: it is exited", "the kubelet rotates the log of a container that has just ended"},
	{"creating termination-log file.*no such file|etc-hosts.*no such file", "the kubelet starts a container of a pod whose folder it has just removed"},
	{"Failed to remove container log dead symlink.*no such file", "two parts of the kubelet remove the same link"},
	{"ContainerStatus from runtime service failed.*not found", "the kubelet asks for a container that it removes at the same time"},
}

// judgeLogs fails the test for what the kubelet or the daemon complains about.
func (n *node) judgeLogs() {
	n.t.Helper()
	for line := range n.lines(n.kubelet.log) {
		if n.daemonAway && strings.Contains(line, "code = Unavailable") {
			continue
		}
		if strings.HasPrefix(line, "E") && !isUsual(line) {
			n.t.Errorf("the kubelet says: %s", line)
		}
	}
	for line := range n.lines(n.daemon.log) {
		if (strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN")) && !isUsual(line) {
			n.t.Errorf("the daemon says: %s", line)
		}
	}
}

func isUsual(line string) bool {
	for _, u := range usual {
		if regexp.MustCompile(u.pattern).MatchString(line) {
			return true
		}
	}
	return false
}

func (n *node) lines(path string) func(func(string) bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Error(err)
	}
	return strings.Lines(strings.TrimRight(string(text), "\n"))
}
