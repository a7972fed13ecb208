"""The guides' commands, with a real helm and a real kubectl, against an API server: what they make is what the guides show."""
import os, re, shutil, tempfile, unittest
import cluster, stack
from stack import GUIDE, HERE, ROOT

# `kubectl get all` of the guides: seed -> (environment, namespace, route file, lines without hashes and ages). Pods by count.
ISTIO = {"service/gaie-pd-epp ClusterIP 9002/TCP,9090/TCP", "service/gaie-pd-ip-bb618139 ClusterIP 54321/TCP", "service/infra-pd-inference-gateway-istio ClusterIP 15021/TCP,80/TCP",
         "deployment.apps/gaie-pd-epp 1/1", "deployment.apps/infra-pd-inference-gateway-istio 1/1", "deployment.apps/ms-pd-llm-d-modelservice-decode 1/1",
         "deployment.apps/ms-pd-llm-d-modelservice-prefill 4/4", "replicaset.apps/gaie-pd-epp 1 1 1", "replicaset.apps/infra-pd-inference-gateway-istio 1 1 1",
         "replicaset.apps/ms-pd-llm-d-modelservice-decode 1 1 1", "replicaset.apps/ms-pd-llm-d-modelservice-prefill 4 4 4",
         "pod/gaie-pd-epp 1/1 x1", "pod/infra-pd-inference-gateway-istio 1/1 x1", "pod/ms-pd-llm-d-modelservice-decode 2/2 x1", "pod/ms-pd-llm-d-modelservice-prefill 1/1 x4"}
GUIDES = {
    "000": ("hpu", "llm-d", "httproute.yaml", {
        "pod/gaie-pd-epp 1/1 x1", "pod/infra-pd-inference-gateway 1/1 x1", "pod/ms-pd-llm-d-modelservice-decode 2/2 x1", "pod/ms-pd-llm-d-modelservice-prefill 1/1 x1"}),
    "001": ("default", "llm-d-pd", "httproute.yaml", ISTIO),
    "002": ("gke_tpu", "llm-d-pd", "httproute.gke.yaml", {
        "pod/gaie-pd-epp 1/1 x1", "pod/ms-pd-llm-d-modelservice-decode 2/2 x1", "pod/ms-pd-llm-d-modelservice-prefill 1/1 x2", "service/gaie-pd-epp ClusterIP 9002/TCP,9090/TCP",
        "service/gaie-pd-ips-bb618139 ClusterIP 54321/TCP", "deployment.apps/gaie-pd-epp 1/1", "deployment.apps/ms-pd-llm-d-modelservice-decode 1/1",
        "deployment.apps/ms-pd-llm-d-modelservice-prefill 2/2", "replicaset.apps/gaie-pd-epp 1 1 1", "replicaset.apps/ms-pd-llm-d-modelservice-decode 1 1 1",
        "replicaset.apps/ms-pd-llm-d-modelservice-prefill 2 2 2"}),
    "004": ("amd", "llm-d-pd", "httproute.yaml", ISTIO),
}


class Shell:
    """A person's shell before a cluster: real helm and kubectl, our stand-in for helmfile."""

    def __init__(self, kube, helm="3"):
        self.bin = tempfile.mkdtemp(prefix="deploy-bin-")
        for name, target in (("helm", stack.HELM[helm]), ("kubectl", stack.KUBECTL)):
            os.symlink(target, f"{self.bin}/{name}")
        with open(f"{self.bin}/helmfile", "w") as f:
            f.write(f"#!/bin/sh\nexec {stack.PEERS}/venv/bin/python {HERE}/helmfile \"$@\"\n")
        os.chmod(f"{self.bin}/helmfile", 0o755)
        self.env = {"PATH": f"{self.bin}:{os.environ['PATH']}", "KUBECONFIG": kube.kubeconfig, "HOME": self.bin, "HELM_CACHE_HOME": f"{self.bin}/c", "HELM_CONFIG_HOME": f"{self.bin}/g"}

    def __call__(self, script, cwd=GUIDE, check=True, **env):
        return stack.run(["bash", "-ec", script], {**self.env, **env}, cwd, check=check)

    def close(self):
        shutil.rmtree(self.bin, ignore_errors=True)


class Cluster(unittest.TestCase):
    def setUp(self):
        self.kube = cluster.Cluster().__enter__()
        self.addCleanup(lambda: self.kube.__exit__())
        self.shell = Shell(self.kube)
        self.addCleanup(self.shell.close)

    def everything(self, ns):
        """`kubectl get all` in the words of GUIDES."""
        lines, counted = set(), {}
        for line in self.shell(f"kubectl get all -n {ns}").stdout.splitlines():
            cells = line.split()
            if not cells or cells[0] == "NAME":
                continue
            if cells[0].startswith("pod/"):
                name = re.sub(r"-[a-z0-9]{10}-[a-z0-9]{5}$", "", cells[0]) + " " + cells[1]
                counted[name] = counted.get(name, 0) + 1
            elif cells[0].startswith("service/"):
                lines.add(f"{cells[0]} {cells[1]} {cells[4]}")
            elif cells[0].startswith("replicaset"):
                lines.add(re.sub(r"-[a-z0-9]{10}$", "", cells[0]) + " " + " ".join(cells[1:4]))
            else:
                lines.add(f"{cells[0]} {cells[1]}")
        return lines | {f"{name} x{n}" for name, n in counted.items()}

    def test_guides(self):
        for seed, (env, ns, route, want) in GUIDES.items():
            with self.subTest(seed):
                self.shell(f"kubectl create namespace {ns}; kubectl create secret generic llm-d-hf-token --from-literal=HF_TOKEN=t -n {ns}")
                self.shell(f"helmfile apply -e {env} -n {ns}")
                self.shell(f"kubectl apply -f {route} -n {ns}")
                releases = {tuple(l.split()[i] for i in (0, 1, 2)) for l in self.shell(f"helm list -n {ns}").stdout.splitlines()[1:]}
                self.assertEqual({("infra-pd", ns, "1"), ("gaie-pd", ns, "1"), ("ms-pd", ns, "1")}, releases)
                have = self.everything(ns)
                if seed == "000":  # that guide lists pods only
                    have = {l for l in have if l.startswith("pod/")}
                self.assertEqual(want, have)
                route_state = stack.load(self.shell(f"kubectl get httproute llm-d-pd-disaggregation -n {ns} -o yaml").stdout)["status"]["parents"][0]["conditions"]
                self.assertEqual({"True"}, {c["status"] for c in route_state})
                self.assertIn("10.16.4.3", self.shell(f"kubectl get gateway -n {ns} -o jsonpath='{{.items[0].status.addresses[0].value}}'").stdout)
                for role in ("decode", "prefill"):
                    pod = self.shell(f"kubectl get pods -n {ns} -l llm-d.ai/role={role} -o jsonpath='{{.items[0].metadata.name}}'").stdout
                    self.assertIn("vllm: ready", self.shell(f"kubectl logs -n {ns} {pod} -c vllm --tail=50").stdout)
                # As the guides clean up: destroy knows no environment, the uninstalls after it find nothing and harm nothing.
                self.shell(f"helmfile destroy -n {ns}")
                for release in ("ms-pd", "gaie-pd", "infra-pd"):
                    self.assertIn("not found", self.shell(f"helm uninstall {release} -n {ns}", check=False).stderr)
                self.shell(f"kubectl delete -f {route} -n {ns} --ignore-not-found")
                self.assertEqual(set(), self.everything(ns))
                self.shell(f"kubectl delete namespace {ns}")

    def test_two_installs(self):
        self.shell("helmfile apply -n one; RELEASE_NAME_POSTFIX=pd-2 helmfile apply -n one")
        self.assertEqual(6, len(self.shell("helm list -n one -q").stdout.split()))
        names = self.shell("kubectl get httproute -n one -o name").stdout.split()
        self.assertEqual(["llm-d-pd-2-disaggregation", "llm-d-pd-disaggregation"], sorted(n.split("/")[1] for n in names))
        self.shell("RELEASE_NAME_POSTFIX=pd-2 helmfile destroy -n one")
        self.assertEqual(["gaie-pd", "infra-pd", "ms-pd"], self.shell("helm list -n one -q").stdout.split())
        self.assertEqual(["llm-d-pd-disaggregation"], [n.split("/")[1] for n in self.shell("kubectl get httproute -n one -o name").stdout.split()])

    def test_upgrade_from_a_chart_of_before(self):
        """A running Deployment's selector is kept, as Kubernetes refuses another one; the new pods still carry every label."""
        ns = "old"
        self.shell(f"kubectl create namespace {ns}")
        selector = {"llm-d.ai/inferenceServing": "true", "llm-d.ai/model": "random_model", "llm-d.ai/role": "decode"}
        owner = {"meta.helm.sh/release-name": "ms-pd", "meta.helm.sh/release-namespace": ns}
        old = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ms-pd-llm-d-modelservice-decode", "annotations": owner, "labels": {"app.kubernetes.io/managed-by": "Helm"}},
               "spec": {"replicas": 1, "selector": {"matchLabels": selector}, "template": {"metadata": {"labels": selector}, "spec": {"containers": [{"name": "vllm", "image": "i"}]}}}}
        stack.run(["kubectl", "apply", "-n", ns, "-f", "-"], self.shell.env, stdin=__import__("json").dumps(old))
        self.shell(f"helm upgrade --install ms-pd {ROOT}/charts/modelservice -n {ns} -f {HERE}/generations/modelservice-0.2.7.yaml")
        now = stack.load(self.shell(f"kubectl get deployment ms-pd-llm-d-modelservice-decode -n {ns} -o yaml").stdout)
        self.assertEqual(selector, now["spec"]["selector"]["matchLabels"])
        labels = now["spec"]["template"]["metadata"]["labels"]
        self.assertTrue(stack.matches(selector, labels))
        self.assertTrue(stack.matches({"llm-d.ai/inference-serving": "true", "app.kubernetes.io/instance": "ms-pd"}, labels))
        self.shell(f"helm upgrade ms-pd {ROOT}/charts/modelservice -n {ns} -f {GUIDE}/ms-pd/values.yaml")
        self.assertEqual("4/4", re.search(r"prefill\s+(\S+)", self.shell(f"kubectl get deploy -n {ns}").stdout)[1])

    def test_helm4(self):
        shell = Shell(self.kube, "4")
        self.addCleanup(shell.close)
        shell("helmfile apply -e kind -n four; helmfile apply -e kind -n four")
        self.assertIn("pod/ms-pd-llm-d-modelservice-decode 2/2 x1", self.everything("four"))
        shell("helmfile destroy -n four")
        self.assertEqual(set(), self.everything("four"))

    def test_refused_objects(self):
        bad = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec: {parentRef: []}\n"
        done = stack.run(["kubectl", "apply", "-f", "-"], self.shell.env, stdin=bad, check=False)
        self.assertIn("is invalid", done.stderr)
