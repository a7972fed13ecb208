#!/usr/bin/env bash
# The tools that the guides use: git, curl, helm, helmfile, helm-diff, kubectl, yq; --dev adds chart-testing. What is there and new
# enough stays. Downloads are checked against the publishers' checksums.
#   ./install-deps.sh [--dev] [--check]       --check: only say what is there (exit status 1 if something is missing or too old)
#   BIN_DIR=/usr/local/bin
set -euo pipefail
HELM=3.19.0 HELM_DIFF=3.14.0 HELMFILE=1.3.2 KUBECTL=1.33.4 YQ=4.47.1 CT=3.14.0
DEV=no CHECK=no BIN_DIR=${BIN_DIR:-/usr/local/bin}
for arg in "$@"; do
  case $arg in
    --dev) DEV=yes;;
    --check) CHECK=yes;;
    -h|--help) sed -n '2,5s/^# //p' "$0"; exit 0;;
    *) echo "unknown argument $arg (--help)" >&2; exit 1;;
  esac
done
OS=$(uname | tr '[:upper:]' '[:lower:]') ARCH=$(uname -m)
case $ARCH in x86_64) ARCH=amd64;; aarch64|arm64) ARCH=arm64;; *) echo "error: no downloads for $ARCH" >&2; exit 1;; esac

# version TOOL: what is installed, as 1.2.3; nothing if it is not, or is another program of that name (Debian's yq)
version() {
  local said
  command -v "$1" >/dev/null || return 0
  case $1 in
    git|curl) said=$("$1" --version 2>&1 | head -1);;
    helm) said=$(helm version --short 2>&1);;
    helmfile) said=$(helmfile --version 2>&1);;
    kubectl) said=$(kubectl version --client 2>&1 | head -1);;
    yq) said=$(yq --version 2>&1 | grep mikefarah || true);;
    ct) said=$(ct version 2>&1);;
  esac
  grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' <<<"$said" | head -1 || true
}
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ]; }
root() { if [ -w "$BIN_DIR" ]; then "$@"; else sudo "$@"; fi; }

SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
# download URL FILE SUMS [NAME]: FILE, whose SHA-256 stands in SUMS (beside NAME, where SUMS lists several)
download() {
  curl -fsSL --retry 3 -o "$SCRATCH/$2" "$1"
  local want have
  want=$(curl -fsSL --retry 3 "$3" | { if [ -n "${4:-}" ]; then grep -F "$4" || true; else cat; fi; } | grep -oE '\b[0-9a-f]{64}\b' | head -1 || true)
  have=$(sha256sum "$SCRATCH/$2" | cut -d' ' -f1)
  [ -n "$want" ] && [ "$want" = "$have" ] || { echo "error: $1 is not what its publisher's checksum says ($3)" >&2; exit 1; }
}
put() { root install -m 0755 "$SCRATCH/$1" "$BIN_DIR/$2"; }

get_git() { if command -v apt-get >/dev/null; then root apt-get install -y -qq git; else echo "error: install git with your system's package manager" >&2; exit 1; fi; }
get_curl() { if command -v apt-get >/dev/null; then root apt-get install -y -qq curl; else echo "error: install curl with your system's package manager" >&2; exit 1; fi; }
get_helm() {
  download "https://get.helm.sh/helm-v$HELM-$OS-$ARCH.tar.gz" helm.tgz "https://get.helm.sh/helm-v$HELM-$OS-$ARCH.tar.gz.sha256sum"
  tar xzf "$SCRATCH/helm.tgz" -C "$SCRATCH"; put "$OS-$ARCH/helm" helm
}
get_helmfile() {
  local at=https://github.com/helmfile/helmfile/releases/download/v$HELMFILE file=helmfile_${HELMFILE}_${OS}_$ARCH.tar.gz
  download "$at/$file" helmfile.tgz "$at/helmfile_${HELMFILE}_checksums.txt" "$file"
  tar xzf "$SCRATCH/helmfile.tgz" -C "$SCRATCH" helmfile; put helmfile helmfile
}
get_kubectl() { download "https://dl.k8s.io/release/v$KUBECTL/bin/$OS/$ARCH/kubectl" kubectl "https://dl.k8s.io/release/v$KUBECTL/bin/$OS/$ARCH/kubectl.sha256"; put kubectl kubectl; }
get_yq() {
  local at=https://github.com/mikefarah/yq/releases/download/v$YQ
  curl -fsSL --retry 3 -o "$SCRATCH/yq" "$at/yq_${OS}_$ARCH"
  # its checksum file has one column for each of many algorithms: ours has to be among them
  curl -fsSL --retry 3 "$at/checksums" | grep "^yq_${OS}_$ARCH " | grep -qF "$(sha256sum "$SCRATCH/yq" | cut -d' ' -f1)" || { echo "error: yq's checksum is not the published one" >&2; exit 1; }
  put yq yq
}
get_ct() {
  local at=https://github.com/helm/chart-testing/releases/download/v$CT file=chart-testing_${CT}_${OS}_$ARCH.tar.gz
  download "$at/$file" ct.tgz "$at/checksums.txt" "$file"
  tar xzf "$SCRATCH/ct.tgz" -C "$SCRATCH" ct; put ct ct
}

WANT="git:2.30.0 curl:7.0.0 helm:3.12.0 helmfile:1.1.0 kubectl:1.28.0 yq:4.0.0"
[ $DEV = no ] || WANT+=" ct:3.0.0"
BAD=0
for entry in $WANT; do
  tool=${entry%%:*} least=${entry##*:}
  have=$(version "$tool")
  if [ -n "$have" ] && ! older "$have" "$least"; then echo "$tool $have"; continue; fi
  if [ $CHECK = yes ]; then
    echo "$tool ${have:-missing} (needs $least)"
    BAD=1
  else
    echo "$tool ${have:-missing}: installing"
    "get_$tool"
    hash -r
  fi
done
if command -v helm >/dev/null && ! helm plugin list 2>/dev/null | grep -q '^diff'; then
  if [ $CHECK = yes ]; then echo "helm-diff missing"; BAD=1
  else
    # helm 4 asks for signatures that the plugin does not have
    case $(version helm) in 4.*) helm plugin install --verify=false https://github.com/databus23/helm-diff --version v$HELM_DIFF;; *) helm plugin install https://github.com/databus23/helm-diff --version v$HELM_DIFF;; esac
  fi
fi
exit $BAD
