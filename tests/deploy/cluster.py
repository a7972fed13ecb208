"""A Kubernetes API server without nodes, enough for kubectl and helm: discovery, objects checked by kinds.py, patches, tables, and the
controllers whose objects the guides show: Deployment -> ReplicaSet -> Pods, Gateway -> Deployment and Service, InferencePool -> Service.

    with Cluster() as c: stack.run([KUBECTL, "get", "pods"], {"KUBECONFIG": c.kubeconfig})"""
import base64, copy, datetime, hashlib, http.server, json, os, re, shutil, tempfile, threading, urllib.parse, uuid, yaml
import kinds

# group/version, plural, kind, namespaced, short names, shown by `get all`
TABLE = [
    ("v1", "namespaces", "Namespace", False, "ns", False), ("v1", "pods", "Pod", True, "po", True), ("v1", "services", "Service", True, "svc", True),
    ("v1", "secrets", "Secret", True, "", False), ("v1", "configmaps", "ConfigMap", True, "cm", False), ("v1", "serviceaccounts", "ServiceAccount", True, "sa", False),
    ("v1", "nodes", "Node", False, "no", False), ("v1", "events", "Event", True, "ev", False),
    ("apps/v1", "deployments", "Deployment", True, "deploy", True), ("apps/v1", "replicasets", "ReplicaSet", True, "rs", True),
    ("rbac.authorization.k8s.io/v1", "roles", "Role", True, "", False), ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", True, "", False),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", False, "", False),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", False, "", False),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", True, "netpol", False), ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", True, "pdb", False),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", False, "crd", False),
    ("gateway.networking.k8s.io/v1", "gateways", "Gateway", True, "gtw", False), ("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute", True, "", False),
    ("inference.networking.k8s.io/v1", "inferencepools", "InferencePool", True, "infpool", False),
    ("inference.networking.x-k8s.io/v1alpha2", "inferencepools", "InferencePool", True, "xinfpool", False),
    ("networking.istio.io/v1", "destinationrules", "DestinationRule", True, "dr", False), ("telemetry.istio.io/v1", "telemetries", "Telemetry", True, "", False),
    ("gateway.kgateway.dev/v1alpha1", "gatewayparameters", "GatewayParameters", True, "", False),
    ("monitoring.coreos.com/v1", "servicemonitors", "ServiceMonitor", True, "", False), ("monitoring.coreos.com/v1", "podmonitors", "PodMonitor", True, "", False),
    ("monitoring.coreos.com/v1", "prometheusrules", "PrometheusRule", True, "", False),
    ("networking.gke.io/v1", "healthcheckpolicies", "HealthCheckPolicy", True, "", False), ("networking.gke.io/v1", "gcpbackendpolicies", "GCPBackendPolicy", True, "", False),
    ("monitoring.googleapis.com/v1", "podmonitorings", "PodMonitoring", True, "", False),
]
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


class Fail(Exception):
    def __init__(self, code, reason, message, **details):
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": message, "code": code, "details": details}


MERGE_KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "ports": ("containerPort", "port"), "volumeMounts": "mountPath", "imagePullSecrets": "name"}


def merged(old, patch, strategic=False, field=""):
    """RFC 7386; strategic: lists by their keys, and $patch: delete, as kubectl and helm send them for built-in kinds."""
    if isinstance(patch, list) and strategic and field in MERGE_KEYS and all(isinstance(x, dict) for x in patch):
        keys = MERGE_KEYS[field]
        key = lambda x: next(x[k] for k in ([keys] if isinstance(keys, str) else keys) if k in x)
        out = {key(x): x for x in old or []}
        for x in patch:
            if x.get("$patch") == "delete":
                out.pop(key(x), None)
            else:
                out[key(x)] = merged(out.get(key(x)), x, True)
        return list(out.values())
    if not isinstance(patch, dict):
        return patch
    if strategic and patch.get("$patch") == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    out = dict(old) if isinstance(old, dict) else {}
    if strategic and "$retainKeys" in patch:
        out = {k: v for k, v in out.items() if k in patch["$retainKeys"]}
    for k, v in patch.items():
        if strategic and k.startswith("$"):
            continue
        if v is None:
            out.pop(k, None)
        else:
            out[k] = merged(out.get(k), v, strategic, k)
    return out


def short(text, n=10):
    """A name's suffix in the letters that Kubernetes uses."""
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    h = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    return "".join(alphabet[(h >> 5 * i) % len(alphabet)] for i in range(n))


def fields(data):
    """(number, value) of a protobuf message, as far as strings, messages and integers go."""
    at = 0
    def varint():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at, n, shift = at + 1, n | (byte & 127) << shift, shift + 7
            if byte < 128:
                return n
    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            size = varint()
            yield tag >> 3, data[at:at + size]
            at += size


def decoded(body):
    """An object as clients send it: JSON, YAML, or, for a Namespace or a Secret, Kubernetes' protobuf."""
    if not body.startswith(b"k8s\0"):
        return yaml.load(body, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    pairs = lambda entries: {dict(fields(e))[1].decode(): dict(fields(e)).get(2, b"") for e in entries}
    unknown = dict(fields(body[4:]))
    kind = dict(fields(unknown[1]))[2].decode()
    assert kind in ("Namespace", "Secret"), f"no protobuf of a {kind} is known here"
    parts = list(fields(unknown[2]))
    meta = list(fields(dict(parts)[1]))
    out = {"metadata": {"name": dict(meta)[1].decode(), "labels": {k: v.decode() for k, v in pairs(v for n, v in meta if n == 11).items()},
                        "annotations": {k: v.decode() for k, v in pairs(v for n, v in meta if n == 12).items()}}}
    if kind == "Secret":
        out["data"] = {k: base64.b64encode(v).decode() for k, v in pairs(v for n, v in parts if n == 2).items()}
        out["type"] = dict(parts).get(3, b"Opaque").decode() or "Opaque"
    return out


def selects(selector, labels):
    for term in filter(None, re.split(r",(?![^()]*\))", selector)):
        m = re.fullmatch(r"\s*([^\s!=]+)\s*(?:(=|==|!=)\s*(\S*)|\s+(in|notin)\s+\(([^)]*)\))?\s*", term)
        k, op, v, inside, words = m.groups()
        if op in ("=", "=="):
            ok = labels.get(k) == v
        elif op == "!=":
            ok = labels.get(k) != v
        elif inside:
            ok = (labels.get(k) in [w.strip() for w in words.split(",")]) == (inside == "in")
        else:
            ok = k in labels
        if not ok:
            return False
    return True


class Cluster:
    def __init__(self, apis=None, minor=33):
        self.lock, self.version, self.minor = threading.RLock(), 1, minor
        self.rows = {(gv, plural): (kind, namespaced, names, in_all) for gv, plural, kind, namespaced, names, in_all in TABLE if apis is None or "." not in gv.split("/")[0] or
                     gv.endswith(".k8s.io/v1") or gv in apis}
        self.objects = {}  # (gv, plural, namespace, name) -> object
        self.gateway_class = "istio"
        self.state = tempfile.mkdtemp(prefix="deploy-cluster-")
        self.kubeconfig = f"{self.state}/config"
        self.put("v1", "namespaces", None, {"metadata": {"name": "default"}})
        self.put("v1", "nodes", None, {"metadata": {"name": "minikube"}, "status": {"capacity": {"habana.ai/gaudi": "2"}}})

    def __enter__(self):
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are written apart: without it each answer waits 40 ms for the client's ACK
            def log_message(self, *args): pass
            def do(self):
                try:
                    cluster.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        with open(self.kubeconfig, "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "test", "users": [{"name": "test", "user": {}}],
                       "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.server.server_address[1]}"}}],
                       "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}]}, f)
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        shutil.rmtree(self.state, ignore_errors=True)

    # ---- objects

    def all(self, plural, namespace=None):
        return [o for (_, p, ns, _), o in sorted(self.objects.items(), key=str) if p == plural and namespace in (None, ns)]

    def put(self, gv, plural, ns, obj, owner=None):
        kind, namespaced, _, _ = self.rows[gv, plural]
        name = obj["metadata"].get("name") or obj["metadata"]["generateName"] + short(str(self.version), 5)
        if namespaced and ("v1", "namespaces", "", ns) not in self.objects:
            raise Fail(404, "NotFound", f'namespaces "{ns}" not found', name=ns, kind="namespaces")
        self.version += 1
        old = self.objects.get((gv, plural, ns or "", name), {}).get("metadata", {})
        meta = {"uid": old.get("uid") or str(uuid.uuid4()), "creationTimestamp": old.get("creationTimestamp") or datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}
        obj = {"apiVersion": gv, "kind": kind, **obj, "metadata": {**meta, **obj["metadata"], "name": name, "resourceVersion": str(self.version), "generation": 1}}
        if namespaced:
            obj["metadata"]["namespace"] = ns
        if owner:
            obj["metadata"]["ownerReferences"] = [{k: owner["metadata"][k] if k in ("name", "uid") else owner[k] for k in ("apiVersion", "kind", "name", "uid")} | {"controller": True}]
        if plural not in ("pods", "replicasets", "nodes", "namespaces", "events", "customresourcedefinitions"):
            wrong = kinds.errors({k: v for k, v in obj.items() if k != "status"})
            if wrong:
                raise Fail(422, "Invalid", f'{kind} "{name}" is invalid: {"; ".join(wrong)}', name=name, kind=kind)
            if plural == "deployments" and old:
                before = self.objects[gv, plural, ns or "", name]["spec"]["selector"]
                if before != obj["spec"]["selector"]:
                    raise Fail(422, "Invalid", f'Deployment.apps "{name}" is invalid: spec.selector: field is immutable', name=name, kind=kind)
        if plural == "secrets" and "stringData" in obj:
            obj["data"] = {**obj.get("data", {}), **{k: base64.b64encode(v.encode()).decode() for k, v in obj.pop("stringData").items()}}
        self.objects[gv, plural, ns or "", name] = obj
        getattr(self, f"made_{kind}", lambda o: None)(obj)
        return obj

    def erase(self, key):
        obj = self.objects.pop(key)
        self.version += 1
        for k, o in list(self.objects.items()):
            owners = o["metadata"].get("ownerReferences", [])
            if any(r["uid"] == obj["metadata"]["uid"] for r in owners) or (key[1] == "namespaces" and k[2] == key[3]):
                if k in self.objects:
                    self.erase(k)
        return obj

    # ---- controllers

    def made_Deployment(self, d):
        ns, name, spec = d["metadata"]["namespace"], d["metadata"]["name"], d["spec"]
        suffix = short(json.dumps(spec["template"], sort_keys=True))
        n = spec.get("replicas", 1)
        for k in [k for k, o in self.objects.items() if k[1] == "replicasets" and k[2] == ns and any(r["uid"] == d["metadata"]["uid"] for r in o["metadata"].get("ownerReferences", []))]:
            self.erase(k)
        labels = {**spec["template"]["metadata"]["labels"], "pod-template-hash": suffix}
        rs = self.put("apps/v1", "replicasets", ns, {"metadata": {"name": f"{name}-{suffix}", "labels": labels}, "spec": {"replicas": n, "selector": spec["selector"], "template": spec["template"]},
                                                     "status": {"replicas": n, "readyReplicas": n, "availableReplicas": n}}, d)
        for i in range(n):
            pod_spec = copy.deepcopy(spec["template"]["spec"])
            conditions = [{"type": t, "status": "True"} for t in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
            statuses = [{"name": c["name"], "ready": True, "restartCount": 0, "state": {"running": {}}} for c in pod_spec["containers"]]
            beside = [{"name": c["name"], "ready": True, "started": True, "restartCount": 0} for c in pod_spec.get("initContainers", [])]
            self.put("v1", "pods", ns, {"metadata": {"name": f"{name}-{suffix}-{short(name + str(i), 5)}", "labels": labels}, "spec": pod_spec,
                                        "status": {"phase": "Running", "podIP": f"10.52.5.{i + 4}", "conditions": conditions, "containerStatuses": statuses, "initContainerStatuses": beside}}, rs)
        d["status"] = {"observedGeneration": 1, "replicas": n, "readyReplicas": n, "availableReplicas": n, "updatedReplicas": n,
                       "conditions": [{"type": t, "status": "True", "reason": "MinimumReplicasAvailable"} for t in ("Available", "Progressing")]}

    def made_Service(self, s):
        s["spec"].setdefault("clusterIP", f"10.96.0.{self.version % 250 + 1}")

    def made_Gateway(self, g):
        """Istio names its Deployment and Service GATEWAY-CLASS, kgateway GATEWAY; GKE's load balancer is nothing in the cluster."""
        ns, cls = g["metadata"]["namespace"], g["spec"]["gatewayClassName"]
        g["status"] = {"addresses": [{"type": "IPAddress", "value": "10.16.4.3"}], "conditions": [{"type": t, "status": "True", "reason": t} for t in ("Accepted", "Programmed")]}
        if cls.startswith("gke"):
            return
        name = g["metadata"]["name"] + ("-istio" if cls == "istio" else "")
        labels = {"gateway.networking.k8s.io/gateway-name": g["metadata"]["name"]}
        spec = {"containers": [{"name": "proxy", "image": "proxy"}]}
        self.put("apps/v1", "deployments", ns, {"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}}, g)
        kind, ports = "ClusterIP", [{"name": "default", "port": 80}]
        overlay = self.objects.get(("v1", "configmaps", ns, g["metadata"]["name"]))
        if cls == "istio":
            ports.insert(0, {"name": "status-port", "port": 15021})
        if overlay:
            kind = yaml.safe_load(overlay["data"]["service"])["spec"]["type"]
        self.put("v1", "services", ns, {"metadata": {"name": name}, "spec": {"type": kind, "selector": labels, "ports": ports}}, g)

    def made_InferencePool(self, p):
        for route in self.all("httproutes", p["metadata"]["namespace"]):
            self.made_HTTPRoute(route)

    def made_HTTPRoute(self, r):
        r["status"] = {"parents": [{"parentRef": p, "controllerName": "test/gateway", "conditions": [
            {"type": "Accepted", "status": "True" if any(g["metadata"]["name"] == p["name"] for g in self.all("gateways", r["metadata"]["namespace"])) else "False"},
            {"type": "ResolvedRefs", "status": "True" if all(any(q["metadata"]["name"] == b["name"] and q["apiVersion"].startswith(b["group"]) for q in self.all("inferencepools", r["metadata"]["namespace"]))
                                                             for rule in r["spec"]["rules"] for b in rule["backendRefs"]) else "False"}]} for p in r["spec"]["parentRefs"]]}
        self.shadow(r["metadata"]["namespace"])

    def shadow(self, ns):
        """A headless Service for every pool that a route leads to: POOL-ip-HASH, on GKE POOL-ips-HASH."""
        classes = [g["spec"]["gatewayClassName"] for g in self.all("gateways", ns)]
        led = {b["name"] for r in self.all("httproutes", ns) for rule in r["spec"]["rules"] for b in rule["backendRefs"]}
        for pool in self.all("inferencepools", ns):
            name = pool["metadata"]["name"]
            if name not in led or not classes or classes[0] not in ("istio", "gke-l7-regional-external-managed"):
                continue
            infix = "ips" if classes[0].startswith("gke") else "ip"
            self.put("v1", "services", ns, {"metadata": {"name": f"{name}-{infix}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"},
                                            "spec": {"type": "ClusterIP", "clusterIP": "None", "selector": {"pool": name}, "ports": [{"name": "http", "port": 54321}]}}, pool)

    # ---- HTTP

    def answer(self, h):
        body = h.rfile.read(int(h.headers.get("content-length") or 0))
        url = urllib.parse.urlparse(h.path)
        query = {k: v[-1] for k, v in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        try:
            found = self.discovery(url.path)
            if found is None:
                gv, plural, ns, name, sub = self.route(url.path)
                if (gv, plural) not in self.rows:
                    raise Fail(404, "NotFound", "the server could not find the requested resource")
                if h.command == "GET" and query.get("watch") in ("1", "true"):
                    return self.watch(h, gv, plural, ns, query)
                with self.lock:
                    found = self.serve(h.command, gv, plural, ns, name, sub, query, body, h.headers)
            code = 201 if h.command == "POST" else 200
        except Fail as e:
            code, found = e.code, e.body
        data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        h.send_response(code)
        h.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data)

    def discovery(self, path):
        versions = sorted({gv for gv, _ in self.rows if gv != "v1"})
        if path in ("/version", "/version/"):
            return {"major": "1", "minor": str(self.minor), "gitVersion": f"v1.{self.minor}.0", "platform": "linux/amd64"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = {}
            for gv in versions:
                group, v = gv.split("/")
                groups.setdefault(group, []).append({"groupVersion": gv, "version": v})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": g, "versions": vs, "preferredVersion": vs[0]} for g, vs in groups.items()]}
        m = re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/[^/]+))", path)
        if m:
            gv = m[1] or m[2]
            if gv not in versions and gv != "v1":
                raise Fail(404, "NotFound", "the server could not find the requested resource")
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": [
                {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": VERBS, "shortNames": [names] if names else [], "categories": ["all"] if in_all else []}
                for (v, plural), (kind, namespaced, names, in_all) in self.rows.items() if v == gv]}
        if path == "/openapi/v3":
            return {"paths": {("api/v1" if gv == "v1" else f"apis/{gv}"): {"serverRelativeURL": f"/openapi/v3/{'api/v1' if gv == 'v1' else 'apis/' + gv}"} for gv in ["v1", *versions]}}
        if path.startswith("/openapi/v3/"):
            gv = path.removeprefix("/openapi/v3/api").removeprefix("s").strip("/")
            group, _, version = gv.rpartition("/")
            field = [{"name": n, "in": "query"} for n in ("fieldValidation", "dryRun", "fieldManager")]
            return {"openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "paths": {
                f"/{plural}/{{name}}": {"patch": {"parameters": field, "responses": {}, "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind}}}
                for (v, plural), (kind, _, _, _) in self.rows.items() if v == gv}}
        return None

    @staticmethod
    def route(path):
        parts = [urllib.parse.unquote(p) for p in path.strip("/").split("/")]
        gv, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        ns = None
        if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            ns, rest = rest[1], rest[2:]
        return gv, rest[0] if rest else "", ns, rest[1] if len(rest) > 1 else None, rest[2] if len(rest) > 2 else None

    def serve(self, method, gv, plural, ns, name, sub, query, body, headers):
        kind, namespaced, _, _ = self.rows[gv, plural]
        key = (gv, plural, ns or "", name)
        group = gv.split("/")[0] if "/" in gv else ""
        full = f"{plural}.{group}" if group else plural
        if name and method != "POST" and key not in self.objects and not (method == "PATCH" and "apply-patch" in headers.get("content-type", "")):
            raise Fail(404, "NotFound", f'{full} "{name}" not found', name=name, kind=plural)
        if sub == "log":
            return f"{name} {query.get('container', '')}: ready\n"
        if method == "GET" and name:
            return self.shown([self.objects[key]], plural, headers, one=True)
        if method == "GET":
            return self.shown(self.chosen(gv, plural, ns, query), plural, headers, kind=kind, gv=gv)
        dry = query.get("dryRun") == "All"
        before = dict(self.objects)
        try:
            if method == "POST":
                obj = decoded(body)
                if (gv, plural, ns or "", obj["metadata"].get("name")) in self.objects:
                    raise Fail(409, "AlreadyExists", f'{full} "{obj["metadata"]["name"]}" already exists', name=obj["metadata"]["name"], kind=plural)
                return self.put(gv, plural, ns, obj)
            if method == "PUT":
                return self.put(gv, plural, ns, decoded(body))
            if method == "PATCH":
                patch = decoded(body)
                how = headers.get("content-type", "")
                return self.put(gv, plural, ns, merged(copy.deepcopy(self.objects.get(key, {"metadata": {"name": name}})), patch, "strategic" in how))
            if method == "DELETE" and name:
                gone = self.erase(key)
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {"name": name, "kind": plural, "uid": gone["metadata"]["uid"]}}
            for o in self.chosen(gv, plural, ns, query):
                self.erase((gv, plural, ns or "", o["metadata"]["name"]))
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        finally:
            if dry:
                self.objects = before

    def chosen(self, gv, plural, ns, query):
        out = [o for (g, p, n, _), o in sorted(self.objects.items(), key=lambda kv: kv[0]) if (g, p) == (gv, plural) and ns in (None, n)]
        out = [o for o in out if selects(query.get("labelSelector", ""), o["metadata"].get("labels") or {})]
        for term in filter(None, query.get("fieldSelector", "").split(",")):
            k, v = re.split(r"==?", term)
            out = [o for o in out if {"metadata.name": o["metadata"]["name"], "metadata.namespace": o["metadata"].get("namespace")}.get(k, v) == v]
        return out

    def watch(self, h, gv, plural, ns, query):
        """What there is now, then the end: enough for clients that wait for what already holds."""
        h.send_response(200)
        h.send_header("Content-Type", "application/json")
        h.send_header("Connection", "close")
        h.end_headers()
        with self.lock:
            events = [{"type": "ADDED", "object": o} for o in self.chosen(gv, plural, ns, query)] if query.get("sendInitialEvents") == "true" else []
            if query.get("sendInitialEvents") == "true":
                mark = {"kind": self.rows[gv, plural][0], "apiVersion": gv, "metadata": {"resourceVersion": str(self.version), "annotations": {"k8s.io/initial-events-end": "true"}}}
                events.append({"type": "BOOKMARK", "object": mark})
        for e in events:
            h.wfile.write(json.dumps(e).encode() + b"\n")
        h.wfile.flush()
        h.close_connection = True

    # ---- tables, as a real server makes them

    def shown(self, objs, plural, headers, one=False, kind="", gv=""):
        if "as=Table" in headers.get("accept", ""):
            columns = {"pods": ["READY", "STATUS", "RESTARTS"], "services": ["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"], "deployments": ["READY", "UP-TO-DATE", "AVAILABLE"],
                       "replicasets": ["DESIRED", "CURRENT", "READY"], "gateways": ["CLASS", "ADDRESS", "PROGRAMMED"]}.get(plural, [])
            rows = [{"cells": [o["metadata"]["name"], *self.cells(plural, o), "1m"], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"]}} for o in objs]
            return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(self.version)}, "rows": rows,
                    "columnDefinitions": [{"name": c, "type": "string", "format": "name" if c == "Name" else "", "description": "", "priority": 0} for c in ["Name", *columns, "Age"]]}
        if one:
            return objs[0]
        return {"kind": kind + "List", "apiVersion": gv, "metadata": {"resourceVersion": str(self.version)}, "items": objs}

    @staticmethod
    def cells(plural, o):
        s = o.get("status", {})
        if plural == "pods":
            native = [c for c in o["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"]
            n = len(o["spec"]["containers"]) + len(native)
            return [f"{n}/{n}", "Running", "0"]
        if plural == "services":
            return [o["spec"].get("type", "ClusterIP"), o["spec"]["clusterIP"], "<none>", ",".join(f"{p['port']}/TCP" for p in o["spec"]["ports"])]
        if plural == "deployments":
            return [f"{s['readyReplicas']}/{o['spec'].get('replicas', 1)}", str(s["readyReplicas"]), str(s["readyReplicas"])]
        if plural == "replicasets":
            return [str(o["spec"]["replicas"])] * 3
        if plural == "gateways":
            return [o["spec"]["gatewayClassName"], s["addresses"][0]["value"], "True"]
        return []
