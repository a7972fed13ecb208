"""What the tests of charts and guides share: where helm, kubectl and the programs are, a runner of helmfiles, and renders as objects."""
import concurrent.futures, functools, hashlib, json, os, re, subprocess, tempfile, yaml

ROOT = os.path.realpath(os.path.dirname(os.path.realpath(__file__)) + "/../..")
HERE = f"{ROOT}/tests/deploy"
PEERS = f"{ROOT}/build/deploy-peers"
BIN = None  # where our programs are; None: tests of their arguments are skipped
HELM = {"4": f"{PEERS}/helm4", "3": f"{PEERS}/helm3"}
KUBECTL = f"{PEERS}/kubectl"
GUIDE = f"{ROOT}/guides/pd-disaggregation"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What a cluster with everything installed says it has.
APIS = ["telemetry.istio.io/v1", "networking.istio.io/v1", "monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1",
        "inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"]

ENVIRONMENTS = ["default", "istio", "istioBench", "kgateway", "agentgateway", "gke", "gke_tpu", "xpu", "hpu", "amd", "aks", "digitalocean", "cpu", "kind"]
ACCELERATORS = ["xpu", "hpu", "tpu", "amd", "cpu", "kind"]
GATEWAYS = ["istio", "kgateway", "agentgateway", "gke", "builtin"]


def load(text):
    return yaml.load(text, LOADER)


def objects(text):
    return [o for o in yaml.load_all(text, LOADER) if o]


def key(o):
    return f"{o['kind']}/{o['metadata']['name']}"


def digest(o):
    return hashlib.sha256(json.dumps(o, sort_keys=True).encode()).hexdigest()[:10]


class Refused(Exception):
    """helm said no; the text is its reason."""


def run(command, env=None, cwd=None, stdin=None, check=True):
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, input=stdin, text=True, capture_output=True, timeout=300)
    if check and done.returncode:
        raise Refused(done.stderr.strip() or done.stdout.strip())
    return done


def helm_template(release, chart, values=(), namespace="llm-d-pd", version="4", kube="1.33.0", apis=APIS, sets=()):
    """values: paths, or objects."""
    command = [HELM[version], "template", release, chart, "-n", namespace, "--kube-version", kube]
    for api in apis:
        command += ["--api-versions", api]
    for s in sets:
        command += ["--set", s]
    with tempfile.TemporaryDirectory() as scratch:
        for i, v in enumerate(values):
            if not isinstance(v, str):
                path = f"{scratch}/{i}.yaml"
                with open(path, "w") as f:
                    json.dump(v, f)
                v = path
            command += ["-f", v]
        return run(command, {"HELM_CACHE_HOME": f"{scratch}/c", "HELM_CONFIG_HOME": f"{scratch}/g"}).stdout


# ---- helmfile, as far as our helmfiles use it. Its templates are Go's: helm itself renders them, as the body of a ConfigMap.

def go_template(text, values, env, namespace, environment):
    text = re.sub(r'\benv "(\w+)"', r'(index $.Values.env_ "\1" | default "")', text)
    text = text.replace(".Namespace", "$.Values.namespace_").replace(".Environment.Name", "$.Values.environment_")
    with tempfile.TemporaryDirectory() as chart:
        os.mkdir(f"{chart}/templates")
        for path, content in {
                "Chart.yaml": "{apiVersion: v2, name: helmfile, version: 0.0.1}",
                "values.yaml": json.dumps({**values, "env_": env, "namespace_": namespace, "environment_": environment}),
                "templates/_body.tpl": '{{- define "body" -}}\n' + text + "\n{{- end -}}",
                "templates/c.yaml": 'kind: ConfigMap\napiVersion: v1\nmetadata: {name: body}\ndata:\n  body: {{ include "body" . | toJson }}\n'}.items():
            with open(f"{chart}/{path}", "w") as f:
                f.write(content)
        out = run([HELM["4"], "template", "h", chart]).stdout
    return objects(out)[0]["data"]["body"]


def helmfile(path, environment="default", namespace="", env=None):
    """The releases, in order: name, namespace, chart, values (paths and objects)."""
    env, here = env or {}, os.path.dirname(os.path.realpath(path))
    with open(path) as f:
        parts = re.split(r"(?m)^---\s*$", f.read())
    values = {}
    if path.endswith(".gotmpl"):
        if len(parts) > 1:
            known = environments(parts[0], tuple(sorted(env.items())))
            if environment not in known:
                raise Refused(f'environment "{environment}" is not defined; there are {", ".join(known)}')
            for v in known[environment].get("values", []):
                values.update(v)
        text = go_template(parts[-1], values, env, namespace, environment)
    else:
        text = parts[-1]
    state = load(text)
    releases = []
    for r in state["releases"]:
        if str(r.get("installed", True)).lower() == "false":
            continue
        local = lambda p: os.path.normpath(f"{here}/{p}") if p.startswith(".") or os.path.exists(f"{here}/{p}") else p
        releases.append({**r, "namespace": namespace or r.get("namespace") or "default", "chart": local(r["chart"]),
                         "values": [local(v) if isinstance(v, str) else v for v in r.get("values", [])]})
    order = {f"{r['namespace']}/{r['name']}": i for i, r in enumerate(releases)}
    for r in releases:
        for need in r.get("needs", []):
            if order[need] > order[f"{r['namespace']}/{r['name']}"]:
                raise Refused(f"{r['name']} needs {need}, which comes later")
    return releases


@functools.cache
def environments(text, env):
    return load(go_template(text, {}, dict(env), "", "default"))["environments"]


# ---- the matrix

@functools.cache
def release(name, chart, values, namespace, version, kube):
    return helm_template(name, chart, [v if not v.startswith("{") else json.loads(v) for v in values], namespace, version, kube)


def render(environment, namespace="llm-d-pd", version="4", kube="1.33.0", **env):
    """{release: [objects]} of the guide in an environment."""
    out = {}
    for r in helmfile(f"{GUIDE}/helmfile.yaml.gotmpl", environment, namespace, env):
        values = tuple(v if isinstance(v, str) else json.dumps(v) for v in r["values"])
        out[r["name"]] = objects(release(r["name"], r["chart"], values, r["namespace"], version, kube))
    return out


def matrix():
    """name -> (environment, variables): every environment of the guides, and every accelerator behind every gateway."""
    rows = {e: (e, {}) for e in ENVIRONMENTS}
    rows["amd+USE_HOST_NETWORK"] = ("amd", {"USE_HOST_NETWORK": "yes"})
    rows |= {f"{a}_{g}": (f"{a}_{g}", {}) for a in ACCELERATORS for g in GATEWAYS}
    rows |= {f"GATEWAY={g}": ("default", {"GATEWAY": g}) for g in ("kgateway", "agentgateway", "gke", "builtin")}
    rows["postfix pd-2"] = ("default", {"RELEASE_NAME_POSTFIX": "pd-2"})
    return rows


@functools.cache
def rendered():
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {name: pool.submit(render, e, **env) for name, (e, env) in matrix().items()}
        return {name: job.result() for name, job in jobs.items()}


def all_objects(releases):
    return [o for r in releases.values() for o in r]


def pods(objs):
    """(workload, pod's metadata, pod's spec) of everything that makes pods."""
    for o in objs:
        if o["kind"] in ("Deployment", "DaemonSet", "StatefulSet", "Job"):
            yield o, o["spec"]["template"].get("metadata", {}), o["spec"]["template"]["spec"]
        elif o["kind"] == "LeaderWorkerSet":
            t = o["spec"]["leaderWorkerTemplate"]["workerTemplate"]
            yield o, t.get("metadata", {}), t["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def matches(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


def find(objs, kind, name=None):
    return [o for o in objs if o["kind"] == kind and (name is None or o["metadata"]["name"] == name)]
