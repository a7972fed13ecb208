"""`baton deploy verify` against an API server whose pods are local processes: a right stack is found right, with KV that moved through its door;
and what is wrong is named, with what to do."""
import json, subprocess, unittest

import harness
from fake_kube import FakeKube, V1
from harness import Stack

GATEWAYS, ROUTES = (("gateway.networking.k8s.io", "v1", plural) for plural in ("gateways", "httproutes"))
PODS, SERVICES, SECRETS = (("", "v1", plural) for plural in ("pods", "services", "secrets"))
TRUE = lambda *types: [{"type": t, "status": "True", "reason": t} for t in types]


def install(kube, stack):
    """What the charts and a gateway's controller leave in a namespace; behind it the stack's own processes."""
    door = "infra-pd-inference-gateway"
    for role, name in (("prefill", "prefill-0"), ("decode", "decode-0")):
        port = engine_port(stack, name)
        labels = {"llm-d.ai/inferenceServing": "true", "llm-d.ai/inference-serving": "true", "llm-d.ai/role": role}
        env = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "llm-d-hf-token", "key": "HF_TOKEN"}}}]
        kube.put(PODS, {"metadata": {"name": f"ms-{role}", "labels": labels},
                        "spec": {"containers": [{"name": "vllm", "env": env, "ports": [{"name": "metrics", "containerPort": port}]}]},
                        "status": {"phase": "Running", "conditions": TRUE("PodScheduled", "Ready"), "containerStatuses": [{"name": "vllm", "ready": True, "state": {"running": {}}}]}})
        kube.behind[f"pods/ms-{role}:{port}"] = f"http://127.0.0.1:{port}"
    kube.put(SECRETS, {"metadata": {"name": "llm-d-hf-token"}, "data": {"HF_TOKEN": "aGZfYWJj"}})
    kube.put(V1, {"metadata": {"name": "gaie-pd"}, "spec": {"selector": {"matchLabels": {"llm-d.ai/inferenceServing": "true"}}, "targetPorts": [{"number": 8000}],
                                                            "endpointPickerRef": {"name": "gaie-pd-epp", "port": {"number": 9002}}}})
    kube.put(GATEWAYS, {"metadata": {"name": door}, "spec": {"gatewayClassName": "istio"}, "status": {"conditions": TRUE("Accepted", "Programmed")}})
    backend = {"group": V1[0], "kind": "InferencePool", "name": "gaie-pd"}
    kube.put(ROUTES, {"metadata": {"name": "route"}, "spec": {"parentRefs": [{"name": door}], "rules": [{"backendRefs": [backend]}]},
                      "status": {"parents": [{"conditions": TRUE("Accepted", "ResolvedRefs")}]}})
    kube.put(SERVICES, {"metadata": {"name": "gaie-pd-epp"}, "spec": {"ports": [{"port": 9002}]}})
    kube.put(SERVICES, {"metadata": {"name": f"{door}-istio"}, "spec": {"ports": [{"port": 15021}, {"port": 80}]}})
    kube.behind[f"services/{door}-istio:80"] = stack.url


def engine_port(stack, name):
    _, argv = stack.children()[name]
    return int(argv[argv.index("--port") + 1])


class DeployVerify(unittest.TestCase):
    def verify(self, kube, *args):
        done = subprocess.run([f"{harness.BIN}/baton", "deploy", "verify", "-n", "default", "--kubeconfig", kube.kubeconfig, "--prompt-words", "60", "--json", *args],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertTrue(done.stdout, done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual(said["right"], done.returncode == 0, done.stdout + done.stderr)
        return {c["name"]: c for c in said["checks"]}

    def named(self, checks, verdict):
        return {name for name, c in checks.items() if c["verdict"] == verdict}

    def test_through_the_api_server(self):
        with Stack(prefill=1, decode=1) as stack, FakeKube() as kube:
            install(kube, stack)
            checks = self.verify(kube)
            self.assertEqual(set(), self.named(checks, "failed"), checks)
            # No Prometheus here, and engines that do not report cached tokens.
            self.assertLessEqual(self.named(checks, "note"), {"metrics are scraped", "known prefixes are reused"}, checks)
            self.assertRegex(checks["KV was handed over"]["detail"], r"\d+ KiB, \d+ tokens over \w+")
            self.assertRegex(checks["KV path"]["detail"], r"\d+ KiB over \w+")
            # One flaw after another, each found by the check that is there for it.
            kube.put(SECRETS, {"metadata": {"name": "llm-d-hf-token"}, "data": {"HF_TOKEN": ""}})
            self.assertEqual({"secrets are filled"}, self.named(self.verify(kube, "--no-requests"), "failed"))
            kube.erase(ROUTES, "route")
            self.assertEqual({"secrets are filled", "route leads to the pool"}, self.named(self.verify(kube, "--no-requests"), "failed"))
            kube.kinds -= {k for k in kube.kinds if k[2] == "inferencepools"}
            self.assertLessEqual({"kinds are served", "pool finds its pods"}, self.named(self.verify(kube, "--no-requests"), "failed"))
            del kube.behind["services/infra-pd-inference-gateway-istio:80"]
            self.assertIn("no endpoints available", self.verify(kube)["requests are answered"]["detail"])

    def test_nothing_there(self):
        with FakeKube() as kube:
            checks = self.verify(kube)
            self.assertEqual(["API server"], list(checks))
            self.assertIn("baton deploy render", checks["API server"]["advice"])


if __name__ == "__main__":
    unittest.main()
