#!/usr/bin/env bash
# Prometheus and Grafana for the guides, with Baton's dashboards and alert rules. An operator that is there already is used.
#   -n NAMESPACE   where to (llm-d-monitoring)      -g FILE   kubeconfig        -u   uninstall        -d   show every command
#   -i             individual: Prometheus looks only at namespaces labelled monitoring-ns=NAMESPACE, else at all
#   -c CHART       kube-prometheus-stack as a file or folder, for clusters without internet
#   -b             only dashboards and alert rules                              -t   Prometheus over TLS (secret prometheus-tls)
set -euo pipefail
HERE=$(cd "$(dirname "$0")/.." && pwd)
NS=llm-d-monitoring UNINSTALL=no INDIVIDUAL=no CHART= BOARDS_ONLY=no TLS=no
while getopts "n:g:c:uidbth" flag; do
  case $flag in
    n) NS=$OPTARG;; g) export KUBECONFIG=$OPTARG;; c) CHART=$OPTARG;; u) UNINSTALL=yes;; i) INDIVIDUAL=yes;; d) set -x;; b) BOARDS_ONLY=yes;; t) TLS=yes;;
    h) sed -n '2,6s/^# //p' "$0"; exit 0;;
    *) sed -n '2,6s/^# //p' "$0" >&2; exit 1;;
  esac
done
RELEASE=llmd # short: the chart's service names meet 63 characters
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
has_kind() { kubectl get crd "$1" >/dev/null 2>&1; }
command -v kubectl >/dev/null || die "kubectl is missing: guides/prereq/client-setup/install-deps.sh"

if [ $UNINSTALL = yes ]; then
  for board in "$HERE"/dashboards/*.json; do kubectl delete configmap "llmd-$(basename "$board" .json)" -n "$NS" --ignore-not-found; done
  if has_kind prometheusrules.monitoring.coreos.com; then kubectl delete -f "$HERE/alerts.yaml" -n "$NS" --ignore-not-found; fi
  if helm status $RELEASE -n "$NS" >/dev/null 2>&1; then helm uninstall $RELEASE -n "$NS"; fi
  exit 0
fi
if has_kind clusterversions.config.openshift.io; then die "this is OpenShift: switch on its own user workload monitoring; then -b installs dashboards and rules"; fi
kubectl get namespace "$NS" >/dev/null 2>&1 || kubectl create namespace "$NS"

if [ $BOARDS_ONLY = no ] && has_kind prometheuses.monitoring.coreos.com; then
  echo "Prometheus' operator is there already; only dashboards and rules are added"
elif [ $BOARDS_ONLY = no ]; then
  command -v helm >/dev/null || die "helm is missing: guides/prereq/client-setup/install-deps.sh"
  if [ -z "$CHART" ]; then
    helm repo add prometheus-community https://prometheus-community.github.io/helm-charts --force-update
    CHART=prometheus-community/kube-prometheus-stack
  fi
  SETS=(--set grafana.adminPassword=admin --set grafana.sidecar.dashboards.enabled=true --set grafana.sidecar.dashboards.searchNamespace=ALL
        --set prometheus.prometheusSpec.serviceMonitorSelectorNilUsesHelmValues=false --set prometheus.prometheusSpec.podMonitorSelectorNilUsesHelmValues=false
        --set prometheus.prometheusSpec.ruleSelectorNilUsesHelmValues=false
        --set prometheus.prometheusSpec.resources.requests.cpu=1 --set prometheus.prometheusSpec.resources.requests.memory=4Gi --set prometheus.prometheusSpec.resources.limits.memory=8Gi)
  if [ $INDIVIDUAL = yes ]; then
    for what in serviceMonitor podMonitor rule; do SETS+=(--set "prometheus.prometheusSpec.${what}NamespaceSelector.matchLabels.monitoring-ns=$NS"); done
    kubectl label namespace "$NS" "monitoring-ns=$NS" --overwrite
  fi
  if [ $TLS = yes ]; then SETS+=(--set prometheus.prometheusSpec.web.tlsConfig.keySecret.name=prometheus-tls --set prometheus.prometheusSpec.web.tlsConfig.keySecret.key=tls.key
                                 --set prometheus.prometheusSpec.web.tlsConfig.cert.secret.name=prometheus-tls --set prometheus.prometheusSpec.web.tlsConfig.cert.secret.key=tls.crt); fi
  # A node exporter of somebody else's has the port already.
  if [ -n "$(kubectl get pods -A -l app.kubernetes.io/name=prometheus-node-exporter -o name)" ]; then SETS+=(--set nodeExporter.enabled=false); fi
  helm upgrade --install $RELEASE "$CHART" -n "$NS" "${SETS[@]}" --timeout 300s
fi

for board in "$HERE"/dashboards/*.json; do
  kubectl create configmap "llmd-$(basename "$board" .json)" -n "$NS" --from-file="$board" --dry-run=client -o yaml |
    kubectl label --local -f - grafana_dashboard=1 --dry-run=client -o yaml | kubectl apply -f -
done
if has_kind prometheusrules.monitoring.coreos.com; then kubectl apply -f "$HERE/alerts.yaml" -n "$NS"; else echo "no PrometheusRule kind: alerts.yaml is left out"; fi
cat <<EOT
Grafana:    kubectl port-forward -n $NS service/$RELEASE-grafana 3000:80        # admin / admin
Prometheus: kubectl port-forward -n $NS service/$RELEASE-kube-prometheus-stack-prometheus 9090:9090
EOT
