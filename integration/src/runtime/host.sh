# A host for container runtimes, in the network namespace that this is started in: its own files and processes, for as long as
# standard input is open. $1: a folder with `plugins`, which becomes /opt/cni/bin; `ready` in it says that the host is there.
# $2: the name of its containers' control groups.
set -eu

inside='
	set -eu
	for own in /run /var/lib /opt /dev/shm; do mount -t tmpfs tmpfs "$own"; done
	mkdir -p /run/netns /run/lock /run/etc/upper /run/etc/work /var/lib/cni/results /opt/cni/bin
	mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc
	mount --bind "$1/plugins" /opt/cni/bin
	# crun refuses a machine that has both versions of control groups.
	if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
	touch "$1/ready"
	# The shell reaps what runtimes orphan. When it ends, the kernel kills all else in here, and the mounts are gone.
	while read -r _; do :; done
'
unshare --mount --pid --fork --mount-proc bash -c "$inside" host "$1"

# Runtimes that were killed leave their control groups. Those of others come and go meanwhile.
find /sys/fs/cgroup -depth -type d \( -path "*/$2" -o -path "*/$2/*" \) -exec rmdir {} + 2>/dev/null || true
