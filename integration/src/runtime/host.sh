# A host for container runtimes, in the network namespace that this is started in: its own files and processes, for as long as
# standard input is open. $1: a folder with `plugins` and `net.d`, which become /opt/cni/bin and /etc/cni/net.d; `ready` in it says
# that the host is there. $2: the folder that becomes libcni's cache. $3: the name of its containers' control groups.
set -eu

inside='
	set -eu
	for own in /run /var/lib /opt /dev/shm; do mount -t tmpfs tmpfs "$own"; done
	mkdir -p /run/netns /run/lock /run/etc/upper /run/etc/work /var/lib/cni/results /opt/cni/bin
	mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc
	mkdir -p /etc/cni/net.d
	mount --bind "$1/plugins" /opt/cni/bin
	mount --bind "$1/net.d" /etc/cni/net.d
	mount --bind "$2" /var/lib/cni/results
	# crun refuses a machine that has both versions of control groups.
	if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
	touch "$1/ready"
	# The shell reaps what runtimes orphan. When it ends, the kernel kills all else in here, and the mounts are gone.
	while read -r _; do :; done
'
unshare --mount --pid --fork --mount-proc bash -c "$inside" host "$1" "$2"

# Runtimes that were killed leave their control groups. Those of others come and go meanwhile.
find /sys/fs/cgroup -depth -type d \( -path "*/$3" -o -path "*/$3/*" \) -exec rmdir {} + 2>/dev/null || true
