#!/usr/bin/env bash
# Builds docker/Dockerfile for CPUs and uses the image as a stranger's container engine would: no rights, a root that
# cannot be written, a token, TLS, a memory limit. Needs root, podman, runc, mmdebstrap, openssl, ffmpeg and some 25 GB
# in /var/tmp (LibTorch is in several layers); the base image is made of this machine's own package sources.
#   KEEP_STORE=DIR  keeps the base image and the built one there, for later runs
#   IMAGE=NAME      uses an image of that store and builds none
#   TOOLKIT=IMAGE   builds for GPUs with that image of the store; jobs run on the CPU all the same
# Removes all else that it made. Prints a line for each fact and exits 1 when one does not hold.
set -euo pipefail
source="$(cd "$(dirname "$0")/../.." && pwd)"
work=$(mktemp -d /var/tmp/kino-container.XXXXXX)
store="${KEEP_STORE:-$work/store}"
mkdir -p "$work/networks" "$work/tls" "$work/auth" "$work/in" "$store"
export TMPDIR="$work" CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"

# runc takes a hybrid cgroup tree, which crun refuses; the limits are not above those that may be in force here.
cat >"$CONTAINERS_CONF" <<CONF
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_config_dir = "$work/networks"
CONF
cat >"$CONTAINERS_STORAGE_CONF" <<CONF
[storage]
driver = "overlay"
graphroot = "$store/graph"
runroot = "$store/run"
CONF
# vfs copies every layer whole, so it is what is left where overlay does not work.
podman info >/dev/null 2>&1 || sed -i 's/"overlay"/"vfs"/' "$CONTAINERS_STORAGE_CONF"

name=kino-check-$$
image="${IMAGE:-localhost/kino-check:$$}"
failed=0
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
until_true() { # within two minutes
  local end=$((SECONDS + 120))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}
is_gone() { rm -rf "$work" && sleep 1 && [ ! -e "$work" ]; }
clean_up() {
  if podman container exists "$name"; then
    [ "$failed" = 0 ] || podman logs "$name" 2>&1 | tail -n 40
    podman rm --force --time 5 "$name" >/dev/null
  fi
  podman volume rm --force "$name" >/dev/null 2>&1 || true
  if [ -z "${KEEP_STORE:-}" ]; then
    podman rmi --force --all >/dev/null 2>&1 || true
  fi
  umount "$store/graph/overlay" >/dev/null 2>&1 || true
  # Podman's own clean-up of a container may come late and write there once more.
  until_true is_gone || true
}
trap clean_up EXIT

# The base: what "FROM debian:12" means, with the machine's own sources, certificates and pip settings in it.
base=$(sed -n 's/^ *"debian" *= *"\(.*\)"/\1/p' /etc/containers/registries.conf.d/shortnames.conf)
if [ -z "${IMAGE:-}" ] && ! podman image exists "$base:12-slim"; then
  cat >"$work/into_root" <<'HOOK'
#!/bin/sh
set -e
find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$1/usr/local/share/ca-certificates/" \;
chroot "$1" update-ca-certificates >/dev/null
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$1/etc/pip.conf"
for file in /etc/apt/apt.conf.d/*; do
  if grep -qE '^ *Acquire::(http|https|Check|ForceI)' "$file"; then cp "$file" "$1/etc/apt/apt.conf.d/"; fi
done
HOOK
  chmod +x "$work/into_root"
  sources=()
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
    if [ -s "$file" ]; then sources+=("$file"); fi
  done
  mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
    --customize-hook="$work/into_root" bookworm "$work/base.tar" "${sources[@]}"
  podman import --quiet --change 'CMD ["bash"]' "$work/base.tar" "$base:12-slim" >/dev/null
  podman tag "$base:12-slim" "$base:12"
  rm "$work/base.tar"
fi
if [ -z "${IMAGE:-}" ]; then
  podman build --pull=never --format docker --network host --build-arg "TOOLKIT=${TOOLKIT:-debian:12}" \
    -f "$source/docker/Dockerfile" -t "$image" "$source"
fi
echo "image: $(($(podman image inspect --format '{{.Size}}' "$image") / 1000000)) MB"

# A certificate authority, a certificate for localhost, a token, a picture: as user 65532 may read them.
(
  cd "$work/tls"
  new_key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "$@"; }
  new_key -x509 -days 2 -subj /CN=kino-check -keyout "$work/ca.key" -out ca.crt
  new_key -subj /CN=localhost -keyout tls.key -out "$work/tls.csr"
  openssl x509 -req -days 2 -in "$work/tls.csr" -CA ca.crt -CAkey "$work/ca.key" -CAcreateserial -out tls.crt \
    -extfile <(echo subjectAltName=DNS:localhost)
) >/dev/null 2>&1
token=$(openssl rand -hex 32)
digest=$(printf %s "$token" | sha256sum | cut -c1-64)
echo "tokens: [{tenant: check, role: use, sha256: $digest}]" >"$work/auth/tokens.yaml"
ffmpeg -loglevel error -f lavfi -i testsrc=size=64x64 -frames:v 1 "$work/in/first.png"
chown -R 65532:65532 "$work/tls" "$work/auth" "$work/in"
chmod 711 "$work"

hardened=(--read-only --cap-drop=all --security-opt no-new-privileges --tmpfs /tmp --pull=never --pids-limit 1024)
# Loopback is all there is of a network; clients join it.
podman run --detach --name "$name" "${hardened[@]}" --network none --memory 3g --volume "$name:/var/lib/kino" \
  --volume "$work/tls:/etc/kino/tls:ro" --volume "$work/auth:/etc/kino/auth:ro" "$image" >/dev/null
on() { timeout 120 podman exec "$name" "$@"; }
# kino in a container of its own, which has the authority's certificate and nothing of the server's.
client() {
  timeout 600 podman run --rm "${hardened[@]}" --network "container:$name" --volume "$work/in:/in:ro" \
    --volume "$work/tls/ca.crt:/etc/kino/tls/ca.crt:ro" "${with[@]}" --entrypoint kino "$image" "$@"
}
with=(--env "KINO_TOKEN=$token")
submit() { client submit "a red star" --image /in/first.png "$@"; }
has_no_compiler() { on sh -c '! command -v cc gcc g++ clang cmake nvcc pip'; }
has_every_library() { on sh -c '! ldd /usr/local/bin/* | grep "not found"'; }
is_not_root() {
  on sh -ec 'grep "^Uid:.65532.65532" /proc/1/status; grep "^CapEff:.0*$" /proc/1/status; ! touch /written'
}
owns_its_data() { [ "$(on stat -c '%u %a' /var/lib/kino)" = "65532 700" ]; }
knows_its_limit() { podman logs "$name" 2>&1 | grep 'worker .* 3221225472 bytes of memory'; }
is_refused() { # is_refused WORD COMMAND...: not only fails, but for that reason
  local word=$1 said
  shift
  if said=$("$@" 2>&1); then return 1; fi
  grep -i -- "$word" <<<"$said"
}
has_not_ended() { client show "$1" --json | tee /dev/stderr | grep -q 'QUEUED\|RUNNING'; }
# A file begins with a box whose name is ftyp.
watches() { client watch "$1" --out - >"$work/clip.mp4" && [ "$(head -c 8 "$work/clip.mp4" | tail -c 4)" = ftyp ]; }
decodes() { ffmpeg -loglevel error -xerror -i "$work/clip.mp4" -f null -; }
ends_well() { podman stop --time 45 "$name" && [ "$(podman inspect "$name" --format '{{.State.ExitCode}}')" = 0 ]; }

fact "no compiler is in the image" has_no_compiler
fact "every program finds its libraries" has_every_library
fact "the server serves" until_true on kino health
fact "and so says the image's health check" podman healthcheck run "$name"
fact "its configuration is one it takes" on kinod --check-config /etc/kino/kino.yaml
fact "it is nobody and can write to nothing but its folders" is_not_root
fact "the volume is its own" owns_its_data
fact "its worker knows the memory limit" until_true knows_its_limit
first=$(submit --seed 1) || failed=1
fact "a job that came with a token over TLS becomes a clip" watches "$first"
fact "which can be decoded" decodes
with=()
fact "nobody is let in without the token" is_refused "unauthenticated\|token" client show "$first"
with=(--env "KINO_TOKEN=$token" --env KINO_TLS_CA=)
fact "nor without TLS" is_refused "cannot be reached" client show "$first"
with=(--env "KINO_TOKEN=$token")
queued=()
# One after the other, and long enough that the last ones still wait when the server stops.
for seed in 2 3 4; do queued+=("$(submit --seed "$seed" --steps 200)") || failed=1; done
fact "SIGTERM ends it in time, and with status 0, while jobs run and wait" ends_well
fact "it starts again" podman start "$name"
fact "and serves" until_true on kino health
fact "it keeps what was done" client download "$first" --out /dev/stdout
fact "and what waited" has_not_ended "${queued[2]}"
for job in "${queued[@]}"; do fact "a job that waited becomes a clip" watches "$job"; done
exit "$failed"
