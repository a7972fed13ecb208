"""Is an object valid? Kubernetes' own kinds by their published schemas, the others by the fields below: as much of each CRD as we use,
closed, so that a field that its API server would drop or refuse is found."""
import functools, importlib.util, json, os
import jsonschema, referencing, referencing.jsonschema

ANY, S, I, B, MAP, LIST = {}, {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "object"}, {"type": "array"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
LABELS = {"type": "object", "additionalProperties": S, "minProperties": 1, "maxProperties": 64}


def o(required="", **fields):
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": fields}


def a(items, least=0, most=64):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def one(*words):
    return {"enum": list(words)}


REF = dict(group=S, kind=S, name=S)
BACKEND_TLS = o(tls=o("mode", mode=one("SIMPLE", "DISABLE", "MUTUAL", "ISTIO_MUTUAL"), insecureSkipVerify=B),
                connectionPool=o(http=o(http1MaxPendingRequests=I, http2MaxRequests=I, maxRequestsPerConnection=I, idleTimeout=DURATION),
                                 tcp=o(maxConnections=I, connectTimeout=DURATION, maxConnectionDuration=DURATION)))
ENDPOINT = dict(port=S, path=S, interval=DURATION, scrapeTimeout=DURATION, metricRelabelings=LIST,
                relabelings=a(o(sourceLabels=a(S), targetLabel=S, regex=S, replacement=S, action=S)))
GKE_TARGET = o("group kind name", **REF)

SPECS = {
    "gateway.networking.k8s.io/v1/Gateway": o(
        "gatewayClassName listeners", gatewayClassName=S, infrastructure=o(parametersRef=o("group kind name", **REF), annotations=MAP, labels=MAP),
        listeners=a(o("name port protocol", name=S, port=PORT, protocol=one("HTTP", "HTTPS", "TCP", "TLS"), hostname=S, tls=MAP,
                      allowedRoutes=o(namespaces=o("from", **{"from": one("All", "Same", "Selector"), "selector": MAP}))), 1)),
    "gateway.networking.k8s.io/v1/HTTPRoute": o(
        parentRefs=a(o("name", namespace=S, sectionName=S, **REF), 0, 32), hostnames=a(S),
        rules=a(o(matches=a(o(path=o(type=one("PathPrefix", "Exact", "RegularExpression"), value=S), headers=LIST, method=S)), filters=LIST,
                  backendRefs=a(o("name", port=PORT, weight=I, namespace=S, **REF)), timeouts=o(request=DURATION, backendRequest=DURATION)), 1, 16)),
    "gateway.networking.k8s.io/v1beta1/ReferenceGrant": o("from to", **{"from": a(o("group kind namespace", group=S, kind=S, namespace=S), 1), "to": a(o("group kind", **REF), 1)}),
    "inference.networking.k8s.io/v1/InferencePool": o(
        "selector targetPorts endpointPickerRef", selector=o("matchLabels", matchLabels=LABELS), targetPorts={**a(o("number", number=PORT), 1, 8), "uniqueItems": True},
        endpointPickerRef=o("name port", port=o("number", number=PORT), failureMode=one("FailOpen", "FailClose"), **REF)),
    "inference.networking.x-k8s.io/v1alpha2/InferencePool": o(
        "selector targetPortNumber extensionRef", selector=LABELS, targetPortNumber=PORT, extensionRef=o("name", portNumber=PORT, failureMode=one("FailOpen", "FailClose"), **REF)),
    "networking.istio.io/v1/DestinationRule": o("host", host=S, trafficPolicy=BACKEND_TLS),
    "telemetry.istio.io/v1/Telemetry": o(targetRefs=a(o("group kind name", **REF), 1), accessLogging=a(o(providers=a(o("name", name=S)), disabled=B))),
    "gateway.kgateway.dev/v1alpha1/GatewayParameters": o(kube=o(
        envoyContainer=o(bootstrap=o(logLevel=one("error", "warn", "info", "debug")), securityContext=MAP, resources=MAP),
        service=o(type=one("ClusterIP", "LoadBalancer", "NodePort")), podTemplate=o(extraLabels=LABELS, securityContext=MAP), floatingUserId=B)),
    "agentgateway.dev/v1alpha1/AgentgatewayParameters": o(logging=o(level=one("error", "warn", "info", "debug")), resources=MAP, service=o(spec=o(type=S))),
    "monitoring.coreos.com/v1/ServiceMonitor": o("endpoints selector", endpoints=a(o(authorization=o(credentials=o("key name", key=S, name=S)), **ENDPOINT), 1),
                                                 namespaceSelector=o(matchNames=a(S)), selector=o(matchLabels=LABELS)),
    "monitoring.coreos.com/v1/PodMonitor": o("podMetricsEndpoints selector", podMetricsEndpoints=a(o(**ENDPOINT), 1), namespaceSelector=MAP, selector=o(matchLabels=LABELS)),
    "monitoring.coreos.com/v1/PrometheusRule": o("groups", groups=a(o("name rules", name=S, interval=DURATION, rules=a(
        o("expr", alert=S, record=S, expr=S, labels=MAP, annotations=MAP, **{"for": DURATION})), ), 1)),
    "networking.gke.io/v1/HealthCheckPolicy": o("targetRef default", targetRef=GKE_TARGET, default=o(
        timeoutSec=I, checkIntervalSec=I, healthyThreshold=I, unhealthyThreshold=I, logConfig=MAP, config=o(type=S, httpHealthCheck=o(requestPath=S, port=PORT)))),
    "networking.gke.io/v1/GCPBackendPolicy": o("targetRef default", targetRef=GKE_TARGET, default=o(timeoutSec=I, logging=o(enabled=B, sampleRate=I))),
    "monitoring.googleapis.com/v1/PodMonitoring": o("endpoints selector", endpoints=a(o("port interval", port=ANY, path=S, interval=DURATION), 1), selector=o(matchLabels=LABELS)),
    "leaderworkerset.x-k8s.io/v1/LeaderWorkerSet": o("leaderWorkerTemplate", replicas=I, startupPolicy=S, rolloutStrategy=MAP, leaderWorkerTemplate=o(
        "workerTemplate", size=I, restartPolicy=S, workerTemplate=MAP, leaderTemplate=MAP, subGroupPolicy=MAP)),
    "keda.sh/v1alpha1/ScaledObject": o("scaleTargetRef triggers", scaleTargetRef=o("name", name=S, kind=S, apiVersion=S), minReplicaCount=I, maxReplicaCount=I, cooldownPeriod=I,
                                       pollingInterval=I, advanced=MAP, triggers=a(o("type metadata", type=S, metadata=MAP, metricType=S, name=S), 1)),
}


@functools.cache
def published(kind, version):
    """The schema of one of Kubernetes' own kinds, or None."""
    folder = os.path.dirname(importlib.util.find_spec("kubernetes_validate").origin) + f"/kubernetes-json-schema/v{version}-local-strict"
    path = f"{folder}/{kind}.json"
    if not os.path.exists(path):
        return None
    with open(path) as f:
        schema = json.load(f)
    return jsonschema.Draft202012Validator(schema, registry=definitions(folder))


@functools.cache
def definitions(folder):
    with open(f"{folder}/_definitions.json") as f:
        contents = json.load(f)
    resource = referencing.Resource(contents, referencing.jsonschema.DRAFT202012)
    return referencing.Registry().with_resource("/api/_definitions.json", resource)


def file_name(obj):
    group, _, version = obj["apiVersion"].rpartition("/")
    return "-".join(filter(None, [obj["kind"].lower(), group.split(".")[0], version]))


@functools.cache
def ours(kind):
    return jsonschema.Draft7Validator(SPECS[kind])


def errors(obj, version="1.33.0"):
    """What is wrong with the object, as text lines."""
    return list(found_errors(json.dumps(obj, sort_keys=True), version))


@functools.cache
def found_errors(text, version):
    return tuple(look(json.loads(text), version))


def look(obj, version):
    own = f"{obj['apiVersion']}/{obj['kind']}"
    if own in SPECS:
        found, top = ours(own).iter_errors(obj.get("spec", {})), "spec"
        extra = set(obj) - {"apiVersion", "kind", "metadata", "spec"}
        yield from (f"field {k} is unknown" for k in extra)
    else:
        validator, top = published(file_name(obj), version), ""
        if validator is None:
            yield f"{own} is no kind that these tests know"
            return
        found = validator.iter_errors(obj)
    for e in found:
        yield f"{top}{''.join(f'[{p}]' if isinstance(p, int) else f'.{p}' for p in e.absolute_path)}: {e.message[:300]}"
