#!/usr/bin/env python3
"""A small API server for tests: get, list (limit/continue, label and metadata.name selectors), watch (history, bookmarks, 410), create,
update and merge patch with conflicts, delete, a Deployment's Scale; resource versions, uids and creation times as a real one gives them. Objects of any kind
whose API path was installed. Standard library alone.

    with FakeKube() as kube:
        kube.put_pool("pool", {"app": "vllm"}, [8000]); kube.put_pod("p0", "10.0.0.1", {"app": "vllm"})
        kube.kubeconfig        # path of a file that leads here
        kube.fault("watch pods", status=503, times=3); kube.cut(); kube.forget(); kube.kill(); kube.restart()

As a program: fake_kube.py --port 0 [--kubeconfig FILE]; then the same by POST /_control {"do": "fault", ...}."""
import argparse, collections, datetime, http.client, http.server, json, os, queue, re, shutil, socket, tempfile, threading, time, urllib.parse, uuid

KINDS = {  # path below the namespace's -> kind
    ("", "v1", "pods"): "Pod",
    ("inference.networking.k8s.io", "v1", "inferencepools"): "InferencePool",
    ("inference.networking.x-k8s.io", "v1alpha2", "inferencepools"): "InferencePool",
    ("inference.networking.x-k8s.io", "v1alpha2", "inferenceobjectives"): "InferenceObjective",
    ("inference.networking.x-k8s.io", "v1alpha2", "inferencemodelrewrites"): "InferenceModelRewrite",
    ("llm-d.ai", "v1alpha2", "inferenceobjectives"): "InferenceObjective",
    ("llm-d.ai", "v1alpha2", "inferencemodelrewrites"): "InferenceModelRewrite",
    ("coordination.k8s.io", "v1", "leases"): "Lease",
    ("apps", "v1", "deployments"): "Deployment",
    ("autoscaling", "v2", "horizontalpodautoscalers"): "HorizontalPodAutoscaler",
    ("", "v1", "services"): "Service",
    ("", "v1", "secrets"): "Secret",
    ("gateway.networking.k8s.io", "v1", "gateways"): "Gateway",
    ("gateway.networking.k8s.io", "v1", "httproutes"): "HTTPRoute",
}
DEPLOYMENTS = ("apps", "v1", "deployments")
V1 = ("inference.networking.k8s.io", "v1", "inferencepools")


class Fail(Exception):
    def __init__(self, code, reason, message):
        super().__init__(message)
        self.status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


def token_review(kube, spec):
    user = kube.tokens.get(spec["token"])
    return {"kind": "TokenReview", "status": {"authenticated": True, "user": {"username": user, "groups": ["system:authenticated"]}} if user else {}}


def access_review(kube, spec):
    asked = (spec["user"], spec["nonResourceAttributes"]["verb"], spec["nonResourceAttributes"]["path"])
    return {"kind": "SubjectAccessReview", "status": {"allowed": asked in kube.allowed}}


REVIEWS = {"/apis/authentication.k8s.io/v1/tokenreviews": token_review,
           "/apis/authorization.k8s.io/v1/subjectaccessreviews": access_review}


def selected(obj, labels, fields):
    if fields and f"metadata.name={obj['metadata']['name']}" != fields:
        return False
    have = obj["metadata"].get("labels") or {}
    return all(have.get(k) == v for k, _, v in (term.partition("=") for term in labels.split(",") if term))


def merged(old, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(old) if isinstance(old, dict) else {}
    for k, v in patch.items():
        if v is None:
            out.pop(k, None)
        else:
            out[k] = merged(out.get(k), v)
    return out


class Watch:
    def __init__(self, resource, ns, labels, fields):
        self.resource, self.ns, self.labels, self.fields = resource, ns, labels, fields
        self.lines = queue.Queue()

    def offer(self, resource, ns, before, after):
        if resource != self.resource or ns != self.ns:
            return
        had, has = (o is not None and selected(o, self.labels, self.fields) for o in (before, after))
        if had or has:
            # What leaves the selector's sight is deleted for this watch, with its last state.
            self.lines.put({"type": "ADDED" if not had else "MODIFIED" if has else "DELETED", "object": after if after is not None else before})


class FakeKube:
    def __init__(self, port=0, ns="default", kinds=None):
        self.ns, self.kinds, self.port = ns, set(kinds or KINDS), port
        self.lock = threading.RLock()
        self.objects = collections.defaultdict(dict)      # (resource, ns) -> {name: object}
        self.history = []                                  # (version, resource, ns, before, after)
        self.version, self.oldest = 1000, 1000
        self.watches, self.faults, self.counts, self.log = [], collections.defaultdict(list), collections.Counter(), []
        self.tokens, self.allowed = {}, set()              # token -> user; (user, verb, path) that may be
        self.behind = {}                                   # "services/NAME:PORT" or "pods/NAME:PORT" -> http://host:port, by the server's proxy
        self.down = False
        self.state = tempfile.mkdtemp(prefix="fake-kube-")
        self.kubeconfig = f"{self.state}/config"

    # ---- life

    def __enter__(self):
        self.restart()
        return self

    def __exit__(self, *exc):
        self.kill()
        shutil.rmtree(self.state, ignore_errors=True)

    def restart(self):
        kube = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # as head and body are written apart
            def log_message(self, *args): pass
            def setup(self):
                super().setup()
                kube.sockets.add(self.connection)
            def finish(self):
                kube.sockets.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass
            def do(self):
                try:
                    kube.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 256
            def handle_error(self, request, address): pass

        self.sockets, self.down = set(), False
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        with open(self.kubeconfig, "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "fake",
                       "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                       "users": [{"name": "fake", "user": {"token": "fake-token"}}],
                       "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": self.ns}}]}, f)

    def kill(self):
        """As kill -9: the port is closed, every connection reset. restart() comes back with the same objects."""
        if self.down:
            return
        self.down = True
        self.server.shutdown()
        self.server.server_close()
        self.cut()
        for s in list(self.sockets):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join()

    # ---- objects

    def put(self, resource, obj, ns=None, expect=None, create=False, only_update=False):
        ns, name = ns or self.ns, obj["metadata"].get("name")
        if not name:
            raise Fail(422, "Invalid", "metadata.name: Required value")
        with self.lock:
            before = self.objects[resource, ns].get(name)
            if create and before is not None:
                raise Fail(409, "AlreadyExists", f'{resource[2]} "{name}" already exists')
            if only_update and before is None:
                raise Fail(404, "NotFound", f'{resource[2]} "{name}" not found')
            if expect is not None and before is not None and expect != before["metadata"]["resourceVersion"]:
                raise Fail(409, "Conflict", f'Operation cannot be fulfilled on {resource[2]} "{name}": the object has been modified')
            self.version += 1
            now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            meta = {"uid": str(uuid.uuid4()), "creationTimestamp": now}
            if before is not None:
                meta = {k: before["metadata"][k] for k in ("uid", "creationTimestamp")}
            after = {"apiVersion": "/".join(filter(None, resource[:2])), "kind": KINDS.get(resource, "Unknown"), **obj,
                     "metadata": {**meta, **obj["metadata"], "namespace": ns, "resourceVersion": str(self.version)}}
            self.objects[resource, ns][name] = after
            self.note(resource, ns, before, after)
            return after

    def erase(self, resource, name, ns=None):
        ns = ns or self.ns
        with self.lock:
            if name not in self.objects[resource, ns]:
                raise Fail(404, "NotFound", f'{resource[2]} "{name}" not found')
            before = self.objects[resource, ns].pop(name)
            self.version += 1
            last = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}
            self.note(resource, ns, last, None)
            return last

    def note(self, resource, ns, before, after):
        self.history.append((self.version, resource, ns, before, after))
        for watch in self.watches:
            watch.offer(resource, ns, before, after)

    def put_pod(self, name, ip, labels, ready=True, ns=None, annotations=None, node="node-0"):
        family = {"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {}
        return self.put(("", "v1", "pods"), {
            "metadata": {"name": name, "labels": labels, "annotations": annotations or {}}, "spec": {"nodeName": node, "containers": [{"name": "vllm"}]},
            "status": {"phase": "Running", **family, "conditions": [{"type": "PodScheduled", "status": "True"},
                                                                    {"type": "Ready", "status": "True" if ready else "False"}]}}, ns)

    def put_pool(self, name, labels, ports, ns=None, old=False):
        if old:
            return self.put(("inference.networking.x-k8s.io", "v1alpha2", "inferencepools"), {
                "metadata": {"name": name}, "spec": {"selector": labels, "targetPortNumber": ports[0], "extensionRef": {"name": name + "-epp"}}}, ns)
        return self.put(V1, {"metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": labels}, "targetPorts": [{"number": p} for p in ports],
            "endpointPickerRef": {"group": "", "kind": "Service", "name": name + "-epp", "port": {"number": 9002}}}}, ns)

    def get(self, resource, name, ns=None):
        with self.lock:
            return self.objects[resource, ns or self.ns].get(name)

    # ---- faults

    def fault(self, what, status=500, times=1, raw=None, hang=False, delay=0.0):
        """what: "<verb> <plural>", verbs get list watch create update patch delete. raw: these bytes as a 200, then the connection breaks."""
        with self.lock:
            self.faults[what] += [dict(status=status, raw=raw, hang=hang, delay=delay)] * times

    def cut(self):
        with self.lock:
            for watch in self.watches:
                watch.lines.put(None)

    def forget(self):
        """Compaction: versions before now are 410."""
        with self.lock:
            self.version += 1
            self.history, self.oldest = [], self.version

    def bookmark(self):
        with self.lock:
            for watch in self.watches:
                watch.lines.put({"type": "BOOKMARK", "object": {"kind": KINDS[watch.resource], "metadata": {"resourceVersion": str(self.version)}}})

    def count(self, what):
        with self.lock:
            return self.counts[what]

    # ---- HTTP

    def answer(self, h):
        length = int(h.headers.get("content-length") or 0)
        body = h.rfile.read(length) if length else b""
        url = urllib.parse.urlparse(h.path)
        query = {k: v[-1] for k, v in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        if url.path == "/_control":
            return self.control(h, json.loads(body))
        if h.command == "POST" and url.path in REVIEWS:
            return self.send(h, 201, REVIEWS[url.path](self, json.loads(body)["spec"]))
        try:
            if url.path == "/apis":
                return self.send(h, 200, self.groups())
            if m := re.fullmatch(r"/api/v1/namespaces/[^/]+/(services|pods)/(?:http:)?([^/]+)/proxy(/.*)", h.path):
                return self.proxy(h, f"{m[1]}/{m[2]}", m[3], body)
            scale = re.fullmatch(r"(.*/deployments/[^/]+)/scale", url.path)
            resource, ns, name = self.route(scale[1] if scale else url.path)
            verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(h.command) or \
                ("get" if name else "watch" if query.get("watch") in ("1", "true") else "list")
            with self.lock:
                what = f"{verb} {resource[2]}" + ("/scale" if scale else "")
                self.counts[what] += 1
                self.log.append((verb, resource, ns, name, query))
                waiting = self.faults[what]
                fault = waiting.pop(0) if waiting else None
            if fault and not self.misbehave(h, fault):
                return
            if h.headers.get("authorization") != "Bearer fake-token":
                raise Fail(401, "Unauthorized", "Unauthorized")
            if resource not in self.kinds:
                raise Fail(404, "NotFound", "the server could not find the requested resource")
            if verb == "watch":
                return self.watch(h, resource, ns, query)
            if scale:
                return self.send(h, 200, self.scale(verb, ns, name, body))
            self.send(h, 201 if verb == "create" else 200, self.serve(verb, resource, ns, name, query, body, h.headers))
        except Fail as e:
            self.send(h, e.status["code"], e.status)

    def groups(self):
        versions = {}
        for group, version, _ in sorted(self.kinds):
            if group:
                versions.setdefault(group, {})[version] = {"groupVersion": f"{group}/{version}", "version": version}
        return {"kind": "APIGroupList", "groups": [{"name": g, "versions": list(v.values())} for g, v in versions.items()]}

    def proxy(self, h, what, path, body):
        if what not in self.behind:
            raise Fail(503, "ServiceUnavailable", f"no endpoints available for {what}")
        c = http.client.HTTPConnection(self.behind[what].removeprefix("http://"), timeout=600)
        try:
            c.request(h.command, path, body or None, {k: v for k, v in h.headers.items() if k.lower() in ("content-type", "accept")})
            answer = c.getresponse()
            h.send_response(answer.status)
            for k, v in answer.getheaders():
                if k.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"):
                    h.send_header(k, v)
            h.send_header("Transfer-Encoding", "chunked")
            h.end_headers()
            while data := answer.read1(65536):
                h.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                h.wfile.flush()
            h.wfile.write(b"0\r\n\r\n")
        finally:
            c.close()

    @staticmethod
    def route(path):
        parts = path.strip("/").split("/")
        group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[2:])
        if len(rest) < 4 or rest[1] != "namespaces" or parts[0] not in ("api", "apis"):
            raise Fail(404, "NotFound", "the server could not find the requested resource")
        return (group, rest[0], rest[3]), rest[2], rest[4] if len(rest) > 4 else None

    def misbehave(self, h, fault):
        """True: go on as usual."""
        if fault["hang"]:
            while not self.down:
                time.sleep(0.05)
            h.close_connection = True
            return False
        if fault["delay"]:
            time.sleep(fault["delay"])
            return True
        h.close_connection = True
        if fault["raw"] is not None:
            h.send_response(200)
            h.send_header("Content-Type", "application/json")
            h.send_header("Transfer-Encoding", "chunked")
            h.end_headers()
            data = fault["raw"].encode()
            h.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            return False
        raise Fail(fault["status"], "Fault", "a fault of the test")

    def serve(self, verb, resource, ns, name, query, body, headers):
        with self.lock:
            if verb == "get":
                found = self.objects[resource, ns].get(name)
                if found is None:
                    raise Fail(404, "NotFound", f'{resource[2]} "{name}" not found')
                return found
            if verb == "list":
                return self.list(resource, ns, query)
            if verb == "delete":
                return self.erase(resource, name, ns)
            try:
                sent = json.loads(body)
            except ValueError:
                raise Fail(400, "BadRequest", "the body is no JSON")
            if verb == "create":
                return self.put(resource, sent, ns, create=True)
            if verb == "patch":
                old = self.objects[resource, ns].get(name)
                if old is None:
                    raise Fail(404, "NotFound", f'{resource[2]} "{name}" not found')
                if "merge-patch" not in headers.get("content-type", ""):
                    raise Fail(415, "UnsupportedMediaType", "only merge patches")
                return self.put(resource, merged(old, sent), ns, expect=(sent.get("metadata") or {}).get("resourceVersion"))
            if sent.get("metadata", {}).get("name") != name:
                raise Fail(400, "BadRequest", "the name of the object does not match the path")
            return self.put(resource, sent, ns, expect=sent["metadata"].get("resourceVersion"), only_update=True)

    def scale(self, verb, ns, name, body):
        """A Deployment's Scale: another view of the same object, so of the same version. Tests stand in for the controller behind it."""
        with self.lock:
            workload = self.objects[DEPLOYMENTS, ns].get(name)
            if workload is None:
                raise Fail(404, "NotFound", f'deployments.apps "{name}" not found')
            if verb == "update":
                sent = json.loads(body)
                if (sent.get("metadata") or {}).get("name") != name:
                    raise Fail(400, "BadRequest", "the name of the object does not match the path")
                changed = {**workload, "spec": {**workload["spec"], "replicas": (sent.get("spec") or {}).get("replicas", 0)}}
                workload = self.put(DEPLOYMENTS, changed, ns, expect=sent["metadata"].get("resourceVersion"))
            elif verb != "get":
                raise Fail(405, "MethodNotAllowed", "a Scale is read and updated")
            replicas, labels = workload["spec"]["replicas"], workload["spec"]["selector"]["matchLabels"]
            return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {k: workload["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion")},
                    "spec": {"replicas": replicas} if replicas else {}, "status": {"replicas": replicas, "selector": ",".join(f"{k}={v}" for k, v in labels.items())}}

    def list(self, resource, ns, query):
        after, limit = "", int(query.get("limit") or 0)
        version = str(self.version)
        if query.get("continue"):
            version, after = json.loads(query["continue"])
            if int(version) < self.oldest:
                raise Fail(410, "Expired", "The provided continue parameter is too old")
        chosen = [o for n, o in sorted(self.objects[resource, ns].items())
                  if n > after and selected(o, query.get("labelSelector", ""), query.get("fieldSelector", ""))]
        meta = {"resourceVersion": version}
        if limit and len(chosen) > limit:
            chosen = chosen[:limit]
            meta["continue"] = json.dumps([version, chosen[-1]["metadata"]["name"]])
        return {"kind": KINDS[resource] + "List", "apiVersion": "/".join(filter(None, resource[:2])), "metadata": meta, "items": chosen}

    def watch(self, h, resource, ns, query):
        watch = Watch(resource, ns, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        ends = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
        with self.lock:
            since = int(query.get("resourceVersion") or self.version)
            if since < self.oldest or since > self.version:
                watch.lines.put({"type": "ERROR", "object": Fail(410, "Expired", f"too old resource version: {since} ({self.oldest})").status})
                watch.lines.put(None)
            else:
                for version, *event in self.history:
                    if version > since:
                        watch.offer(*event)
                self.watches.append(watch)
        try:
            h.send_response(200)
            h.send_header("Content-Type", "application/json")
            h.send_header("Transfer-Encoding", "chunked")
            h.end_headers()
            h.wfile.flush()
            while True:
                try:
                    line = watch.lines.get(timeout=max(0.0, min(1.0, ends - time.monotonic())))
                except queue.Empty:
                    if time.monotonic() >= ends:
                        h.wfile.write(b"0\r\n\r\n")
                        return
                    continue
                if line is None:
                    h.close_connection = True
                    return
                data = json.dumps(line).encode() + b"\n"
                h.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        finally:
            with self.lock:
                if watch in self.watches:
                    self.watches.remove(watch)

    def control(self, h, order):
        do = order.pop("do")
        result = None
        if do in ("put_pod", "put_pool", "fault", "cut", "forget", "bookmark", "count"):
            result = getattr(self, do)(**order)
        elif do == "put":
            result = self.put(tuple(order["resource"]), order["object"])
        elif do == "erase":
            result = self.erase(tuple(order["resource"]), order["name"])
        self.send(h, 200, {"result": result})

    @staticmethod
    def send(h, status, obj):
        data = json.dumps(obj).encode()
        h.send_response(status)
        h.send_header("Content-Type", "application/json")
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--namespace", default="default")
    p.add_argument("--kubeconfig", help="write the kubeconfig there too")
    a = p.parse_args()
    with FakeKube(a.port, a.namespace) as kube:
        if a.kubeconfig:
            shutil.copy(kube.kubeconfig, a.kubeconfig)
        print(f"fake API server on http://127.0.0.1:{kube.port} KUBECONFIG={kube.kubeconfig}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
