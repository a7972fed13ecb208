"""Every environment of the guide, rendered by a real helm: valid, consistent, and as recorded."""
import collections, json, os, re, unittest, yaml
import kinds, stack
from stack import GUIDE, HERE, all_objects, containers, digest, find, key, matches, pods

WRITE = bool(os.environ.get("BATON_WRITE_GOLDENS"))
WHOLE = ["default", "kind", "amd+USE_HOST_NETWORK"]  # recorded word by word, the others as a digest per object

# environment -> devices of prefill and decode: what the guides say, in all
DEVICES = {"default": ("nvidia.com/gpu", 8), "gke": ("nvidia.com/gpu", 8), "gke_tpu": ("google.com/tpu", 24), "xpu": ("gpu.intel.com/i915", 4), "hpu": ("habana.ai/gaudi", 2),
           "amd": ("amd.com/gpu", 8), "amd+USE_HOST_NETWORK": ("amd.com/gpu", 16), "cpu": (None, 0), "kind": (None, 0)}
REPLICAS = {"default": (4, 1), "gke_tpu": (2, 1), "xpu": (2, 1), "hpu": (1, 1), "amd": (4, 1), "amd+USE_HOST_NETWORK": (1, 1), "cpu": (2, 2), "kind": (1, 1)}
RDMA = {"default": 5, "istio": 5, "kgateway": 5, "aks": 5, "amd": 5, "gke": 0, "gke_tpu": 0, "xpu": 0, "hpu": 0, "amd+USE_HOST_NETWORK": 0, "digitalocean": 0, "kind": 0}
# What a device makes impossible of the restricted Pod Security Standard.
SECURITY = {"hpu": "privileged", "amd+USE_HOST_NETWORK": "privileged", "xpu": "baseline", "amd": "baseline", "gke_tpu": "baseline"}


def in_every(test):
    """Runs a check of (self, name, objects) on every environment."""
    def body(self):
        for name, releases in stack.rendered().items():
            with self.subTest(name):
                test(self, name, all_objects(releases))
    body.__name__, body.__doc__ = test.__name__, test.__doc__
    return body


def quantity(q):
    m = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi|Ti|)", str(q))
    return float(m[1]) * {"m": 1e-3, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[m[2]]


def walk(x, path=""):
    yield path, x
    if isinstance(x, dict):
        for k, v in x.items():
            yield from walk(v, f"{path}.{k}")
    elif isinstance(x, list):
        for i, v in enumerate(x):
            yield from walk(v, f"{path}[{i}]")


def security_level(spec):
    """The strictest Pod Security Standard that a pod meets."""
    cs = containers(spec)
    context = [c.get("securityContext", {}) for c in cs]
    if any(spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC")) or any(c.get("privileged") for c in context) or \
            any(c.get("capabilities", {}).get("add") for c in context) or any("hostPath" in v for v in spec.get("volumes", [])):
        return "privileged"
    pod = spec.get("securityContext", {})
    for c in context:
        if c.get("allowPrivilegeEscalation") is not False or c.get("capabilities", {}).get("drop") != ["ALL"]:
            return "baseline"
        if not (c.get("runAsNonRoot") or pod.get("runAsNonRoot")) or c.get("runAsUser", pod.get("runAsUser", 1)) == 0:
            return "baseline"
        if (c.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
            return "baseline"
    return "restricted"


class Valid(unittest.TestCase):
    @in_every
    def test_schemas(self, name, objs):
        for o in objs:
            self.assertEqual([], list(kinds.errors(o)), f"{name} {key(o)}")

    def test_schemas_of_other_kubernetes(self):
        for kube in ("1.30.0", "1.35.0"):
            for env in ("default", "kind", "hpu", "gke_tpu"):
                for o in all_objects(stack.render(env, kube=kube)):
                    self.assertEqual([], list(kinds.errors(o, kube)), f"{kube} {env} {key(o)}")

    def test_schemas_find_faults(self):
        good = find(stack.rendered()["default"]["gaie-pd"], "InferencePool")[0]
        for fault in ({"targetPorts": []}, {"selector": {}}, {"endpointPickerRef": {"name": "x"}}, {"targetPortNumber": 3}):
            self.assertTrue(list(kinds.errors({**good, "spec": {**good["spec"], **fault}})), fault)
        d = json.loads(json.dumps(find(stack.rendered()["default"]["ms-pd"], "Deployment")[0]))
        d["spec"]["template"]["spec"]["containers"][0]["imagePullPolicyy"] = "Always"
        self.assertTrue(list(kinds.errors(d)))

    @in_every
    def test_nothing_empty(self, name, objs):
        for o in objs:
            for path, value in walk(o):
                self.assertIsNotNone(value, f"{name} {key(o)} {path} is null")

    def test_both_helms_agree(self):
        for env in stack.ENVIRONMENTS:
            self.assertEqual(stack.rendered()[env], stack.render(env, version="3"), env)


class Consistent(unittest.TestCase):
    @in_every
    def test_names(self, name, objs):
        keys = [(o["apiVersion"], key(o), o["metadata"].get("namespace")) for o in objs]
        self.assertEqual(len(keys), len(set(keys)))
        for o in objs:
            self.assertRegex(o["metadata"]["name"], r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")
            for k, v in o["metadata"].get("labels", {}).items():
                self.assertRegex(v, r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$", k)

    @in_every
    def test_pods(self, name, objs):
        for w, meta, spec in pods(objs):
            where = f"{name} {key(w)}"
            self.assertTrue(matches(w["spec"].get("selector", {}).get("matchLabels", {}), meta["labels"]), where)
            volumes = {v["name"] for v in spec.get("volumes", [])}
            self.assertEqual(len(volumes), len(spec.get("volumes", [])), where)
            for c in containers(spec):
                self.assertLessEqual({m["name"] for m in c.get("volumeMounts", [])}, volumes, where)
                paths = [m["mountPath"] for m in c.get("volumeMounts", [])]
                self.assertEqual(len(paths), len(set(paths)), where)
                names = [e["name"] for e in c.get("env", [])]
                self.assertEqual(len(names), len(set(names)), where)
                flags = [a.split("=")[0] for a in c.get("args", []) if re.match(r"--?[a-zA-Z]", str(a))]
                self.assertEqual(len(flags), len(set(flags)), f"{where}: {flags}")
                ports = {p["name"]: p["containerPort"] for p in c.get("ports", [])}
                for p in ports:
                    self.assertRegex(p, r"^(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$", where)
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    if probe in c:
                        at = c[probe].get("httpGet") or c[probe].get("grpc")
                        self.assertIn(at["port"], ports.values(), f"{where} {probe}")
                for what, n in c.get("resources", {}).get("limits", {}).items():
                    asked = c["resources"].get("requests", {}).get(what)
                    if "/" in what:
                        self.assertEqual(str(n), str(asked), f"{where}: {what} is not overcommitted")
                    elif asked is not None:
                        self.assertLessEqual(quantity(asked), quantity(n), where)

    @in_every
    def test_routes(self, name, objs):
        """Client -> Gateway -> HTTPRoute -> InferencePool -> picker's Service -> picker; and the pool's pods."""
        serving = [(w, m, s) for w, m, s in pods(objs) if m["labels"].get("llm-d.ai/role")]
        self.assertEqual({"prefill", "decode"}, {m["labels"]["llm-d.ai/role"] for _, m, _ in serving})
        for _, meta, _ in serving:
            self.assertEqual("true", meta["labels"]["llm-d.ai/inferenceServing"])
            self.assertEqual("true", meta["labels"]["llm-d.ai/inference-serving"])
        (picker, picker_meta, picker_spec), = [(w, m, s) for w, m, s in pods(objs) if "inferencepool" in m["labels"]]
        picker_ports = {p["name"]: p["containerPort"] for p in picker_spec["containers"][0]["ports"]}
        service, = find(objs, "Service", picker["metadata"]["name"])
        self.assertTrue(matches(service["spec"]["selector"], picker_meta["labels"]))
        for p in service["spec"]["ports"]:
            self.assertIn(p["targetPort"], picker_ports.values())
        pools = find(objs, "InferencePool")
        if not pools:
            front, = [s for s in find(objs, "Service") if s is not service]
            self.assertTrue(matches(front["spec"]["selector"], picker_meta["labels"]))
            self.assertEqual(front["spec"]["ports"][0]["targetPort"], picker_ports["http"])
            args = picker_spec["containers"][0]["args"]
            selector = dict(t.split("=") for t in args[args.index("--endpoint-selector") + 1].split(","))
            port = int(args[args.index("--endpoint-target-ports") + 1])
            self.assertEqual([], find(objs, "HTTPRoute"))
        else:
            pool, = pools
            self.assertEqual(pool["spec"]["endpointPickerRef"]["name"], service["metadata"]["name"])
            self.assertIn(pool["spec"]["endpointPickerRef"]["port"]["number"], [p["port"] for p in service["spec"]["ports"]])
            selector, port = pool["spec"]["selector"]["matchLabels"], pool["spec"]["targetPorts"][0]["number"]
            route, = find(objs, "HTTPRoute")
            self.assertEqual([o["metadata"]["name"] for o in find(objs, "Gateway")], [p["name"] for p in route["spec"]["parentRefs"]])
            backend, = route["spec"]["rules"][0]["backendRefs"]
            self.assertEqual((backend["name"], backend["group"], backend["port"]), (pool["metadata"]["name"], pool["apiVersion"].split("/")[0], port))
            gke = find(objs, "Gateway")[0]["spec"]["gatewayClassName"].startswith("gke")
            self.assertEqual(gke, "timeouts" not in route["spec"]["rules"][0])
            self.assertEqual(1 if gke else 0, len(find(objs, "HealthCheckPolicy")))
        for _, meta, spec in serving:
            self.assertTrue(matches(selector, meta["labels"]))
            # Whoever is named by the pool's port serves HTTP there: the sidecar of a decode pod, the server of a prefill pod.
            owner, = [c["name"] for c in containers(spec) if port in [p["containerPort"] for p in c["ports"]]]
            self.assertEqual("routing-proxy" if meta["labels"]["llm-d.ai/role"] == "decode" else "vllm", owner)
        self.assertFalse(matches(selector, picker_meta["labels"]))

    @in_every
    def test_watching(self, name, objs):
        for m in find(objs, "PodMonitor"):
            watched = [(meta, spec) for _, meta, spec in pods(objs) if matches(m["spec"]["selector"]["matchLabels"], meta["labels"])]
            self.assertEqual(1, len(watched), key(m))
            named = {p["name"] for c in containers(watched[0][1]) for p in c["ports"]}
            for endpoint in m["spec"]["podMetricsEndpoints"]:
                self.assertIn(endpoint["port"], named)
        for m in find(objs, "ServiceMonitor"):
            watched = [s for s in find(objs, "Service") if matches(m["spec"]["selector"]["matchLabels"], s["metadata"]["labels"])]
            self.assertEqual(1, len(watched), key(m))
            self.assertIn(m["spec"]["endpoints"][0]["port"], [p["name"] for p in watched[0]["spec"]["ports"]])

    @in_every
    def test_keeping(self, name, objs):
        """Budgets and KV's policy are about exactly the pods they mean."""
        for b in find(objs, "PodDisruptionBudget"):
            self.assertEqual(1, len([w for w, meta, _ in pods(objs) if matches(b["spec"]["selector"]["matchLabels"], meta["labels"])]), key(b))
        for p in find(objs, "NetworkPolicy"):
            held = [meta["labels"].get("llm-d.ai/role") for _, meta, _ in pods(objs) if matches(p["spec"]["podSelector"]["matchLabels"], meta["labels"])]
            self.assertEqual(["decode", "prefill"], sorted(str(h) for h in held))
            everybody, = [r for r in p["spec"]["ingress"] if "from" not in r]
            served = {q["port"] for q in everybody["ports"]}
            for _, meta, spec in pods(objs):
                for c in containers(spec) if meta["labels"].get("llm-d.ai/role") else []:
                    for q in c["ports"]:
                        self.assertEqual(q["name"] in ("metrics", "http", "proxy-metrics"), q["containerPort"] in served, f"{q} from everywhere or not")
        self.assertEqual(name != "amd+USE_HOST_NETWORK", bool(find(objs, "NetworkPolicy")), "a policy does not govern the nodes' own network")

    @in_every
    def test_draining(self, name, objs):
        """What a pod promises to others outlives it: grace > hook + server; a prefill server stays for a whole lease."""
        for w, meta, spec in pods(objs):
            role, grace = meta["labels"].get("llm-d.ai/role"), spec["terminationGracePeriodSeconds"]
            if not role:
                continue
            server = spec["containers"][0]
            if server.get("command", [""])[0] == "baton-engine":
                value = lambda flag: int(server["args"][server["args"].index(flag) + 1])
                self.assertGreaterEqual(value("--drain-timeout"), value("--kv-lease"))
                self.assertGreater(grace, server["lifecycle"]["preStop"]["sleep"]["seconds"] + value("--drain-timeout"))
            else:
                script = " ".join(server["lifecycle"]["preStop"]["exec"]["command"])
                slept = int(re.search(r"sleep (\d+)", script)[1])
                if role == "prefill":
                    self.assertGreaterEqual(slept, 30, "a lease")
                self.assertGreater(grace, slept)

    def test_devices(self):
        for name, (resource, count) in DEVICES.items():
            total, rdma = 0, 0
            for w, _, spec in pods(all_objects(stack.rendered()[name])):
                for c in spec["containers"]:
                    limits = c.get("resources", {}).get("limits", {})
                    self.assertLessEqual({k for k in limits if "/" in k}, {resource, "rdma/ib"}, name)
                    total += int(limits.get(resource, 0)) * w["spec"]["replicas"]
                    rdma += int(limits.get("rdma/ib", 0)) * w["spec"]["replicas"]
            self.assertEqual(count, total, name)
            self.assertEqual(RDMA.get(name, 0), rdma, name)

    def test_replicas(self):
        for name, want in REPLICAS.items():
            by_role = {o["metadata"]["labels"]["llm-d.ai/role"]: o["spec"]["replicas"] for o in find(stack.rendered()[name]["ms-pd"], "Deployment")}
            self.assertEqual(want, (by_role["prefill"], by_role["decode"]), name)

    @in_every
    def test_pod_security(self, name, objs):
        plain = re.sub(r"^(tpu|amd|xpu|hpu)(_\w+)?$", lambda m: {"tpu": "gke_tpu"}.get(m[1], m[1]), name)
        for w, meta, spec in pods(objs):
            want = SECURITY.get(plain, "restricted") if meta["labels"].get("llm-d.ai/role") else "restricted"
            self.assertEqual(want, security_level(spec), f"{name} {key(w)}")

    def test_many_in_one_namespace(self):
        one, two = (all_objects(stack.rendered()[n]) for n in ("default", "postfix pd-2"))
        self.assertEqual(set(), {(o["kind"], o["metadata"]["name"]) for o in one} & {(o["kind"], o["metadata"]["name"]) for o in two})
        for mine, other in ((one, two), (two, one)):
            for pool in find(mine, "InferencePool"):
                for _, meta, _ in pods(other):
                    self.assertFalse(matches(pool["spec"]["selector"]["matchLabels"], meta["labels"]))
            for w, _, _ in pods(mine):
                for _, meta, _ in pods(other):
                    self.assertFalse(matches(w["spec"]["selector"]["matchLabels"], meta["labels"]), "a Deployment would adopt another install's pods")

    def test_route_files_are_the_charts_route(self):
        for file, env in (("httproute.yaml", "default"), ("httproute.yaml", "kgateway"), ("httproute.gke.yaml", "gke"), ("httproute.gke.yaml", "gke_tpu")):
            with open(f"{GUIDE}/{file}") as f:
                written = stack.load(f)
            made, = find(stack.rendered()[env]["gaie-pd"], "HTTPRoute")
            self.assertEqual((written["metadata"]["name"], written["spec"]), (made["metadata"]["name"], made["spec"]), file)
            self.assertEqual([], list(kinds.errors(written)))

    def test_switches(self):
        no = stack.render("amd", USE_HOST_NETWORK="no")
        self.assertEqual(stack.rendered()["amd"], no, "USE_HOST_NETWORK=no is no")
        other = stack.render("default", RDMA_RESOURCE="rdma/roce_gdr", SERVICE_TYPE="NodePort", HTTP_ROUTE="no", IMAGE_REGISTRY="example.test/x")
        self.assertIn("rdma/roce_gdr", find(other["ms-pd"], "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"])
        self.assertEqual([], find(other["gaie-pd"], "HTTPRoute"))
        self.assertIn("NodePort", find(other["infra-pd"], "ConfigMap")[0]["data"]["service"])
        self.assertEqual("example.test/x/baton/router:0.1.0", find(other["gaie-pd"], "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"])
        with self.assertRaisesRegex(stack.Refused, "not defined"):
            stack.render("nowhere")

    def test_names_of_the_guides(self):
        """helmfile destroy needs no -e: every environment makes the same releases, in the namespace that -n says."""
        for env in stack.ENVIRONMENTS:
            rs = stack.helmfile(f"{GUIDE}/helmfile.yaml.gotmpl", env, "elsewhere", {})
            self.assertEqual([("infra-pd", "elsewhere"), ("gaie-pd", "elsewhere"), ("ms-pd", "elsewhere")], [(r["name"], r["namespace"]) for r in rs])
        self.assertEqual({"llm-d-pd"}, {r["namespace"] for r in stack.helmfile(f"{GUIDE}/helmfile.yaml.gotmpl", "default")})

    def test_long_release_names(self):
        long = "r" * 45
        objs = stack.objects(stack.helm_template(long, f"{stack.ROOT}/charts/modelservice", [f"{GUIDE}/ms-pd/values.yaml"]))
        for w in find(objs, "Deployment"):
            self.assertLessEqual(len(w["metadata"]["name"]), 63)

    def test_old_kubernetes(self):
        """Before 1.29 there are no native sidecars: the proxy is a container like others, not a pod that waits for ever."""
        spec = find(stack.render("default", kube="1.28.0")["ms-pd"], "Deployment", "ms-pd-llm-d-modelservice-decode")[0]["spec"]["template"]["spec"]
        self.assertNotIn("initContainers", spec)
        self.assertEqual(["vllm", "routing-proxy"], [c["name"] for c in spec["containers"]])

    def test_bare_cluster(self):
        """Without Istio's and Prometheus' kinds nothing of theirs is made, so nothing fails."""
        for chart, values in (("infra", []), ("inferencepool", [f"{GUIDE}/gaie-pd/values.yaml"]), ("modelservice", [f"{GUIDE}/ms-pd/values_kind.yaml"])):
            got = stack.objects(stack.helm_template("x", f"{stack.ROOT}/charts/{chart}", values, apis=[]))
            self.assertEqual([], [key(o) for o in got if o["kind"] in ("Telemetry", "ServiceMonitor", "PodMonitor")])

    def test_rights_of_the_router(self):
        with open(f"{stack.ROOT}/docs/kubernetes-rbac.yaml") as f:
            needed, = find(stack.objects(f.read()), "Role")
        role, = find(stack.objects(stack.helm_template("g", f"{stack.ROOT}/charts/inferencepool", [f"{GUIDE}/gaie-pd/values.yaml"], sets=["inferenceExtension.replicas=2"])), "Role")
        rights = lambda r: {(g, x, v) for rule in r["rules"] for g in rule["apiGroups"] for x in rule["resources"] for v in rule["verbs"]}
        self.assertLessEqual(rights(needed), rights(role))


@unittest.skipUnless(os.environ.get("HELMFILE"), "HELMFILE=path of a real helmfile: the same renders by it")
class Helmfile(unittest.TestCase):
    def test_same(self):
        for name in ("default", "kind", "gke_tpu", "amd+USE_HOST_NETWORK", "postfix pd-2", "hpu_builtin", "GATEWAY=gke"):
            env, variables = stack.matrix()[name]
            args = "--kube-version 1.33.0 " + " ".join(f"--api-versions {a}" for a in stack.APIS)
            done = stack.run([os.environ["HELMFILE"], "--helm-binary", stack.HELM["3"], "-f", "helmfile.yaml.gotmpl", "-e", env, "-n", "llm-d-pd", "template", "--skip-deps", "--args", args], variables, GUIDE)
            order = lambda o: (o["kind"], o["metadata"]["name"])
            self.assertEqual(sorted(all_objects(stack.render(env, version="3", **variables)), key=order), sorted(stack.objects(done.stdout), key=order), name)


class Goldens(unittest.TestCase):
    """As recorded: BATON_WRITE_GOLDENS=1, or run.py --write, records anew."""
    maxDiff = None

    def compare(self, path, text):
        if WRITE:
            with open(path, "w") as f:
                f.write(text)
        with open(path) as f:
            self.assertEqual(f.read(), text, f"{path}: tests/deploy/run.py --write records the new state")

    def test_digests(self):
        lines = []
        for name, releases in stack.rendered().items():
            for release, objs in releases.items():
                lines.append(f"{name} {release}: " + " ".join(f"{key(o)}={digest(o)}" for o in sorted(objs, key=key)))
        self.compare(f"{HERE}/golden/digests.txt", "\n".join(lines) + "\n")

    def test_whole(self):
        for name in WHOLE:
            objs = sorted(all_objects(stack.rendered()[name]), key=lambda o: (o["kind"], o["metadata"]["name"]))
            self.compare(f"{HERE}/golden/{name.replace('+', '-').lower()}.yaml", yaml.safe_dump_all(objs, width=140, sort_keys=True))
