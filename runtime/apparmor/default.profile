# The profile of containers that ask for no other one. It includes nothing, so
# that it means the same on every distribution.
#
# What is not allowed here is denied: mount, umount and pivot_root, changes to
# another profile, and ptrace and signals across profiles.

profile cri-mini-default flags=(attach_disconnected,mediate_deleted) {
  # The seccomp filter and the capability sets are stricter than rules here
  # could be.
  network,
  capability,
  file,

  # From the monitor, the daemon and the administrator.
  signal (receive) peer=unconfined,
{{daemon}}
  # Among the containers of a pod that see each other's processes.
  signal (send, receive) peer=cri-mini-default,
  ptrace (trace, tracedby, read, readby) peer=cri-mini-default,

  # In /proc, folders that begin with a digit belong to processes. Everything
  # else belongs to the node.
  deny /proc/* wl,
  deny /proc/[^0-9]*/** wklx,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,

  # In /sys, cgroups can be delegated to a container. Nothing else can.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/{debug,security,tracing}/** rwklx,
}
