#!/usr/bin/env bash
# Boots a real systemd in a container, with Kino installed in it, and looks at what becomes of kino.service. Needs root,
# podman, runc, mmdebstrap and a build (KINO_BUILD_DIR, default build; one of the `core` preset will do: its jobs wait).
# The container is made of this machine's own package sources. Removes all that it made. Prints a line for each fact and
# exits 1 when one does not hold.
set -euo pipefail
source="$(cd "$(dirname "$0")/../.." && pwd)"
build="$(realpath "${KINO_BUILD_DIR:-$source/build}")"
work=$(mktemp -d /var/tmp/kino-boot.XXXXXX)
mkdir -p "$work/tree/etc/kino" "$work/tree/etc/systemd/system/kino.service.d" "$work/tree/models" "$work/networks"
export TMPDIR="$work" CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"

# runc takes a hybrid cgroup tree, which crun refuses; the limits are not above those that may be in force here.
cat >"$CONTAINERS_CONF" <<END
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_config_dir = "$work/networks"
END
cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "vfs"
graphroot = "$work/store"
runroot = "$work/run"
END

machine=kino-boot-$$
failed=0
on() { timeout 120 podman exec "$machine" "$@"; }
fact() { # fact TEXT COMMAND...: whether it holds is the command's status
  local text=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "holds: $text"
  else
    echo "FAILS: $text"
    tail -n 20 "$work/log" | sed 's/^/    /'
    failed=1
  fi
}
until_true() { # within a minute
  local end=$((SECONDS + 60))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}
clean_up() {
  if podman container exists "$machine"; then
    [ "$failed" = 0 ] || on journalctl --no-pager -u kino | tail -n 40
    podman rm --force --time 5 "$machine" >/dev/null
  fi
  rm -rf "$work"
}
trap clean_up EXIT

DESTDIR="$work/tree" cmake --install "$build" --prefix /usr/local >/dev/null
cp -r "$source/models/demo" "$work/tree/models/demo"
ffmpeg -loglevel error -f lavfi -i testsrc=size=128x128 -frames:v 1 "$work/tree/models/first.png"
cat >"$work/tree/etc/kino/kino.yaml" <<END
models: [{name: demo, folder: /models/demo, defaults: {height: 128, width: 128, num_frames: 9}}]
supervisor: {stop_deadline: 8s}
END
programs=("$build"/bin/kino "$build"/bin/kinod "$build"/bin/kino-frontend "$build"/bin/kino-media)
volumes=()
if [ -x "$build/bin/kino-worker" ]; then
  programs+=("$build/bin/kino-worker")
  packages_of_torch=$(realpath "$(sed -n 's/^KINO_TORCH_DIR:PATH=//p' "$build/CMakeCache.txt")/..")
  volumes=(--volume "$packages_of_torch:/opt/site-packages:ro")
fi
cat >"$work/tree/etc/systemd/system/kino.service.d/boot_check.conf" <<END
[Service]
WatchdogSec=4s
TimeoutStopSec=2s
END
# LibTorch is where the programs look for it, be that below a home.
if [ -n "${packages_of_torch:-}" ]; then
  cat >>"$work/tree/etc/systemd/system/kino.service.d/boot_check.conf" <<END
ProtectHome=tmpfs
BindReadOnlyPaths=/opt/site-packages:$packages_of_torch
END
fi

# The packages that the programs' libraries are from. (dpkg knows those of the base system by other paths.)
packages=$(ldd "${programs[@]}" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' | sort -u | xargs realpath |
  { xargs dpkg -S 2>/dev/null || true; } | cut -d: -f1 | sort -u | paste -sd,)
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
  if [ -s "$file" ]; then sources+=("$file"); fi
done
tar -C "$work/tree" --owner=root:0 --group=root:0 -cf "$work/tree.tar" .
mmdebstrap --quiet --mode=root --variant=minbase --include="systemd,systemd-sysv,dbus,$packages" \
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
  --customize-hook="tar-in $work/tree.tar /" \
  "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/root.tar" "${sources[@]}"
podman import --quiet --change 'CMD ["/sbin/init"]' "$work/root.tar" "$machine" >/dev/null
rm "$work/root.tar"
# What this systemd needs to make the unit's namespaces and to see into its /proc; the unit itself has no capability.
podman run --quiet --pull=never --detach --name "$machine" --systemd=always --cap-add=SYS_ADMIN,SYS_PTRACE \
  --network none "${volumes[@]}" "$machine" >/dev/null

show() { on systemctl show --value --property "$1" kino; }
is() { [ "$(show "$1")" = "$2" ] || { show "$1"; false; }; }
says() { show StatusText | tee /dev/stderr | grep -q "$1"; }
has_job() { on kino show "$job" --json; }
owns_its_data() { [ "$(on stat -c '%U %a' /var/lib/kino)" = "kino 700" ]; }
is_refused() { ! on systemctl start kino; }
was_logged() { on journalctl --no-pager -u kino | grep "$1"; }
frontend() { on sh -c "cat /proc/$(show MainPID)/task/*/children" | cut -d' ' -f1; }
runs_hardened() {
  on sh -ec "cd /proc/$(frontend); [ \$(stat -c %U .) = kino ]; grep ^CapEff:.0*\$ status; grep ^NoNewPrivs:.1\$ status
             grep ^Seccomp:.2\$ status; ! grep -z ^NOTIFY_SOCKET= environ"
}

fact "systemd is up" until_true on systemctl is-active multi-user.target
fact "sysusers makes the user" on systemd-sysusers
fact "kino.service starts" on systemctl start kino
fact "then it serves already" on kino health
fact "its status tells so" says "^serving"
fact "the data are the service's own" owns_its_data
fact "the frontend runs hardened, and cannot speak for kinod" runs_hardened
job=$(on kino submit "a red star" --image /models/first.png) || failed=1
fact "a job is queued whose picture kino-media has looked at" has_job
if [ -x "$build/bin/kino-worker" ]; then
  fact "it becomes a clip" on kino watch "$job" --out /tmp/clip.mp4
  fact "which is there" on test -s /tmp/clip.mp4
fi
fact "a restart succeeds" on systemctl restart kino
fact "it keeps the job" has_job
fact "the watchdog has had no reason so far" is NRestarts 0
on sh -c "kill -STOP $(show MainPID)"
fact "a kinod that hangs is started again" until_true is NRestarts 1
fact "by the watchdog" was_logged "result 'watchdog'"
fact "the server serves again" until_true on kino health
fact "the job is still there" has_job
# With a frontend that does not stop, kinod takes all of its stop_deadline, which is longer than this unit's.
on sh -c "kill -STOP $(frontend)"
fact "a stop succeeds" on systemctl stop kino
fact "it takes the time that kinod asked for" was_logged "the deadline for stopping has passed"
fact "and systemd has killed nothing" is Result success
on sh -c 'echo nonsense: 1 >>/etc/kino/kino.yaml'
fact "a configuration that cannot be used is told" is_refused
fact "by its status" is ExecMainStatus 78
fact "and not tried again" is ActiveState failed
exit "$failed"
