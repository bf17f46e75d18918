package crashpoint

// Points is every point there is, by what is at work. Those that begin with
// "monitor." are in the monitor, all others in the daemon.
var Points = []string{
	"cni.added", "cni.deleted", "cni.intended",
	"create.complete", "create.folder-made", "create.group-made", "create.image-held", "create.mounts-made", "create.prepared", "create.record-written", "create.rootfs-mounted",
	"exec.ended", "exec.group-gone", "exec.group-made", "exec.started",
	"exit.heard", "exit.recorded",
	"file.renamed", "file.written",
	"layer.begun", "layer.complete", "layer.deleted", "layer.described", "layer.entry-read", "layer.marked", "layer.set-aside", "layer.synced", "layer.unpacked",
	"log.handed-over", "log.opened",
	"monitor.answered", "monitor.asked", "monitor.before-clone", "monitor.cloned", "monitor.done", "monitor.drained", "monitor.executed", "monitor.exit-recorded", "monitor.exit-seen", "monitor.exit-told", "monitor.exit-written", "monitor.group-killed", "monitor.handover-written", "monitor.output-read", "monitor.output-written", "monitor.reaped", "monitor.spawned", "monitor.taken-over",
	"network.attached", "network.pair-made", "network.ports-closed", "network.ports-open", "network.record-gone", "network.recorded",
	"pod.complete", "pod.connected", "pod.discarded", "pod.disconnected", "pod.etc-folder-made", "pod.etc-written", "pod.folder-made", "pod.init-forgotten", "pod.init-gone", "pod.init-group-gone", "pod.init-group-made", "pod.init-noted", "pod.init-started", "pod.namespaces-made", "pod.pinned", "pod.record-written", "pod.unpinned",
	"pull.layers-there", "pull.recorded", "pull.resolved", "pull.tag-taken",
	"recovery.compared", "recovery.connected", "recovery.learned", "recovery.read",
	"remove-image.names-gone", "remove-image.record-gone",
	"remove-pod.containers-gone", "remove-pod.folder-gone", "remove-pod.marked", "remove-pod.stopped",
	"remove.discarded", "remove.folder-gone", "remove.forgotten", "remove.group-gone", "remove.image-released", "remove.killed", "remove.layer-gone", "remove.marked", "remove.noted-file-gone",
	"replace.adopted", "replace.handed-over", "replace.noticed", "replace.pinned", "replace.started",
	"request.sent",
	"start.answered", "start.noted", "start.noted-with-pid", "start.prepared-again", "start.recorded", "start.returned",
	"stop-pod.complete", "stop-pod.containers-ended", "stop-pod.marked", "stop-pod.released",
	"stop.killed", "stop.signalled",
	"update-pod.recorded",
	"update.limits-changed", "update.recorded",
	"upgrade.answered", "upgrade.needed",
}
