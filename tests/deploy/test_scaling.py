"""Autoscalers: off unless asked for, valid, by metrics that exist, and slower than what they take away can drain."""
import os, re, unittest
import kinds, stack, yaml
from stack import GUIDE, HERE, ROOT, find, key, pods

PROMETHEUS = "http://prometheus.monitoring:9090"
ROLES = ("prefill", "decode")


def values(kind, **more):
    return {role: {"autoscaling": {"enabled": True, "kind": kind, "minReplicas": 1, "maxReplicas": 8, "prometheus": PROMETHEUS, **more}} for role in ROLES}


def render(*more, server="values.yaml", sets=()):
    return stack.objects(stack.helm_template("ms-pd", f"{ROOT}/charts/modelservice", [f"{GUIDE}/ms-pd/{server}", *more], sets=sets))


def scalers(objs):
    return {o["metadata"]["name"].rsplit("-", 1)[1]: o for o in objs if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")}


def behavior(o):
    return o["spec"].get("behavior") or o["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


def queries():
    """The PromQL of every trigger."""
    for more in ({}, {"pool": "gaie-pd"}):
        for role, o in scalers(render(values("keda", **more))).items():
            for t in o["spec"]["triggers"]:
                yield f"{role} {more}", t["metadata"]["query"]


class Scaling(unittest.TestCase):
    maxDiff = None

    def test_off(self):
        for name, releases in stack.rendered().items():
            self.assertEqual({}, scalers(stack.all_objects(releases)), name)
        objs = render({r: {"autoscaling": {"enabled": True}} for r in ROLES})
        self.assertEqual({}, scalers(objs), "somebody else's autoscaler")
        self.assertTrue(all("replicas" not in w["spec"] for w, _, _ in pods(objs)))

    def test_golden(self):
        """As recorded: run.py --write records anew."""
        objs = [o for kind in ("hpa", "keda") for more in ({}, {"pool": "gaie-pd"}) for o in scalers(render(values(kind, **more))).values()]
        for o in objs:
            self.assertEqual([], kinds.errors(o), key(o))
        text, path = yaml.safe_dump_all(objs, width=140, sort_keys=True), f"{HERE}/golden/scaling.yaml"
        if os.environ.get("BATON_WRITE_GOLDENS"):
            with open(path, "w") as f:
                f.write(text)
        with open(path) as f:
            self.assertEqual(f.read(), text, f"{path}: tests/deploy/run.py --write records the new state")

    def test_they_scale_the_workload(self):
        for kind in ("hpa", "keda"):
            for more, of in (({}, "Deployment"), ({"multinode": True}, "LeaderWorkerSet")):
                objs = render({**values(kind), **more})
                for role, o in scalers(objs).items():
                    at = o["spec"]["scaleTargetRef"]
                    workload, = find(objs, of, at["name"])
                    self.assertEqual((of, workload["apiVersion"]), (at["kind"], at["apiVersion"]))
                    self.assertTrue(at["name"].endswith(role))
                    self.assertNotIn("replicas", workload["spec"])

    def test_scale_down_drains(self):
        """hook + what the server takes to end <= grace <= the time in which the autoscaler takes one pod; and never below one."""
        for kind in ("hpa", "keda"):
            for server in ("values.yaml", "values_kind.yaml"):
                for drain in ({}, {"drain": {"leaseSeconds": 77, "streamSeconds": 300, "preStopSeconds": 9}}):
                    objs = render({**values(kind), **drain}, server=server)
                    d = {"leaseSeconds": 30, "streamSeconds": 120, "preStopSeconds": 5} | drain.get("drain", {})
                    for role, o in scalers(objs).items():
                        spec = find(objs, "Deployment", o["spec"]["scaleTargetRef"]["name"])[0]["spec"]["template"]["spec"]
                        needed = d["preStopSeconds"] + d["leaseSeconds" if role == "prefill" else "streamSeconds"]
                        self.assertLess(needed, spec["terminationGracePeriodSeconds"], f"{kind} {server} {role}")
                        self.assertIn("preStop", spec["containers"][0]["lifecycle"])
                        down = behavior(o)["scaleDown"]
                        for policy in down["policies"]:
                            self.assertEqual(("Pods", 1), (policy["type"], policy["value"]))
                            self.assertGreaterEqual(policy["periodSeconds"], spec["terminationGracePeriodSeconds"])
                        self.assertGreaterEqual(o["spec"].get("minReplicas", o["spec"].get("minReplicaCount")), 1)

    def test_refusals(self):
        for fault, says in (({"maxReplicas": 0}, "maxReplicas"), ({"minReplicas": 9}, "maxReplicas"), ({"prometheus": ""}, "where KEDA asks"),
                            ({"targets": {"cpu": 1}}, "nothing is scaled by cpu"), ({"kind": "vpa"}, "kind")):
            with self.assertRaisesRegex(stack.Refused, says):
                render(values("keda", **fault) if "kind" not in fault else values("vpa"))

    def test_own_metrics(self):
        own = [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]
        for o in scalers(render(values("hpa", metrics=own, behavior={"scaleDown": {"selectPolicy": "Disabled"}}))).values():
            self.assertEqual([], kinds.errors(o))
            self.assertEqual(own, o["spec"]["metrics"])
            self.assertEqual({"scaleDown": {"selectPolicy": "Disabled"}}, o["spec"]["behavior"])
        with_target = scalers(render(values("hpa", targets={"vllm:num_requests_waiting": 4})))
        self.assertEqual("4", with_target["prefill"]["spec"]["metrics"][0]["pods"]["target"]["averageValue"])

    def test_page(self):
        """docs/scaling.md: its values are taken, and its adapter's rules are about the metrics that the HPAs ask for, by the names they ask."""
        with open(f"{ROOT}/docs/scaling.md") as f:
            chart, adapter, ratio = (stack.load(b) for b in re.findall(r"(?ms)^```yaml\n(.*?)^```", f.read()))
        self.assertEqual({"prefill", "decode"}, set(scalers(render(chart))))
        self.assertTrue(find(render(ratio), "Deployment", "ms-pd-llm-d-modelservice-ratio"))
        served = set()
        for rule in adapter["rules"]["custom"] + adapter["rules"]["external"]:
            pattern = re.search(r'__name__=~"([^"]+)"', rule["seriesQuery"])[1]
            for name in ("vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "llm_d_epp_prefill_pressure", "llm_d_epp_decode_pressure"):
                if re.fullmatch(pattern, name):
                    served.add(re.sub(rule["name"]["matches"], r"vllm_\1", name) if "name" in rule else name)
        asked = {m[m["type"].lower()]["metric"]["name"] for more in ({}, {"pool": "gaie-pd"}) for o in scalers(render(values("hpa", **more))).values() for m in o["spec"]["metrics"]}
        self.assertEqual(asked, served)


RATIO = {"ratioController": {"enabled": True, "device": "h200", "prefill": {"min": 1, "max": 6}, "decode": {"min": 1, "max": 2}, "monitoring": {"podmonitor": {"enabled": True}}}}


class Ratio(unittest.TestCase):
    maxDiff = None

    def ratio(self, *more, **how):
        return [o for o in render(RATIO, *more, **how) if o["metadata"]["name"].endswith("-ratio")]

    def test_golden(self):
        """As recorded, valid, and within the restricted Pod Security Standard."""
        objs = self.ratio()
        self.assertEqual(["Deployment", "PodMonitor", "Role", "RoleBinding", "ServiceAccount"], sorted(o["kind"] for o in objs))
        for o in objs:
            self.assertEqual([], kinds.errors(o), key(o))
        text, path = yaml.safe_dump_all(objs, width=140, sort_keys=True), f"{HERE}/golden/ratio.yaml"
        if os.environ.get("BATON_WRITE_GOLDENS"):
            with open(path, "w") as f:
                f.write(text)
        with open(path) as f:
            self.assertEqual(f.read(), text, f"{path}: tests/deploy/run.py --write records the new state")
        spec = find(objs, "Deployment")[0]["spec"]["template"]["spec"]
        self.assertTrue(spec["securityContext"]["runAsNonRoot"])
        self.assertEqual("RuntimeDefault", spec["securityContext"]["seccompProfile"]["type"])
        self.assertEqual({"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, spec["containers"][0]["securityContext"])

    def test_it_is_about_this_release_and_nothing_else(self):
        for sets in ((), ("fullnameOverride=other",)):
            objs = render(RATIO, sets=sets)
            ratio, = [w for w, _, _ in pods(objs) if w["metadata"]["name"].endswith("-ratio")]
            args = dict(a.removeprefix("--").split("=", 1) for a in ratio["spec"]["template"]["spec"]["containers"][0]["args"])
            role, = [o for o in find(objs, "Role")]
            allowed = {(r, n) for rule in role["rules"] for r in rule["resources"] for n in rule.get("resourceNames", ["*"]) if "update" in rule["verbs"]}
            self.assertEqual({("deployments/scale", args["prefill"]), ("deployments/scale", args["decode"]), ("leases", args["lease"])}, allowed)
            for name in ("prefill", "decode"):
                workload, = find(objs, "Deployment", args[name])
                self.assertEqual(name, workload["spec"]["selector"]["matchLabels"]["llm-d.ai/role"])
                self.assertIn("replicas", workload["spec"], "what it begins with")
                server = workload["spec"]["template"]["spec"]["containers"][0]
                self.assertIn("metrics", [p["name"] for p in server["ports"]], "the port it asks")
            # Neither KV's NetworkPolicy nor a budget nor a pool takes it for a model server.
            labels = ratio["spec"]["template"]["metadata"]["labels"]
            for o in find(objs, "NetworkPolicy") + find(objs, "PodDisruptionBudget"):
                wanted = (o["spec"].get("podSelector") or o["spec"].get("selector"))["matchLabels"]
                self.assertNotEqual(wanted, {k: labels.get(k) for k in wanted}, key(o))

    def test_off(self):
        for name, releases in stack.rendered().items():
            self.assertEqual([], [key(o) for o in stack.all_objects(releases) if o["metadata"]["name"].endswith("-ratio")], name)

    def test_refusals(self):
        for fault, says in (({"device": ""}, "ratioController.device"), ({"prefill": {"max": 0}}, "ratioController.prefill.max"), ({"decode": {"min": 3}}, "ratioController.decode.max")):
            with self.assertRaisesRegex(stack.Refused, says):
                render(RATIO, {"ratioController": fault})
        with self.assertRaisesRegex(stack.Refused, "would both scale decode"):
            render(RATIO, {"decode": {"autoscaling": {"enabled": True}}})
        with self.assertRaisesRegex(stack.Refused, "multinode"):
            render(RATIO, {"multinode": True})
        with self.assertRaisesRegex(stack.Refused, "prefill.replicas is 0"):
            render(RATIO, {"prefill": {"replicas": 0}})
        costs = ["--prefill-cost=0,28,1", "--decode-cost=5550,0,68"]
        args = find(self.ratio({"ratioController": {"device": "", "extraArgs": costs}}), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
        self.assertEqual(costs, [a for a in args if "cost" in a])
        self.assertFalse([a for a in args if a.startswith("--device")])

    @unittest.skipUnless(stack.BIN, "run.py --bin DIR")
    def test_the_program_takes_the_arguments(self):
        for more in ({}, {"ratioController": {"holdDevices": 8, "dryRun": True, "ttftMs": 500, "tpotMs": 12.5}}):
            for server in ("values.yaml", "values_kind.yaml"):
                args = find(self.ratio(more, server=server), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
                done = stack.run([f"{stack.BIN}/baton", "deploy", "ratio", *args, "--print-config"], check=False)
                self.assertEqual(0, done.returncode, done.stderr)
                self.assertEqual("", done.stderr)
                self.assertRegex(done.stdout, r"(?m)^prefill: ms-pd-llm-d-modelservice-prefill\b")
