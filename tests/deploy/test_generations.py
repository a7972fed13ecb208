"""Values of every generation of the charts that the users' guides were written for: taken, or refused with a way out."""
import glob, os, unittest
import kinds, stack
from stack import HERE, ROOT, digest, find, key

FULL = {"infra": "infra-pd", "inferencepool": "gaie-pd", "modelservice": "ms-pd"}
GATEWAYS = ["istio", "kgateway", "agentgateway", "gke-l7-regional-external-managed", "data-science-gateway-class"]
NVIDIA = {"modelArtifacts": {"uri": "hf://a/b", "name": "a/b"}, "prefill": {"create": False}}


def role(**more):
    return {**NVIDIA, "decode": {"containers": [{"image": "i", "modelCommand": "vllmServe", **more.pop("container", {})}], **more}}


def generations():
    for path in sorted(glob.glob(f"{HERE}/generations/*.yaml")):
        chart, version = os.path.basename(path)[:-5].split("-")
        yield chart, version, path


def render(chart, values, sets=(), kube="1.34.0"):
    return stack.objects(stack.helm_template(FULL[chart], f"{ROOT}/charts/{chart}", values, sets=sets, kube=kube))


class Generations(unittest.TestCase):
    def test_render(self):
        lines = []
        for chart, version, path in generations():
            for gateway in GATEWAYS if chart == "infra" else [""]:
                with self.subTest(f"{chart} {version} {gateway}"):
                    objs = render(chart, [path], [f"gateway.gatewayClassName={gateway}"] if gateway else [])
                    for o in objs:
                        self.assertEqual([], kinds.errors(o, "1.34.0"), key(o))
                    lines.append(f"{chart} {version} {gateway}: " + " ".join(f"{key(o)}={digest(o)}" for o in sorted(objs, key=key)))
        path = f"{HERE}/golden/generations.txt"
        if os.environ.get("BATON_WRITE_GOLDENS"):
            with open(path, "w") as f:
                f.write("\n".join(lines) + "\n")
        with open(path) as f:
            self.assertEqual(f.read(), "\n".join(lines) + "\n")

    def of(self, chart, version):
        return render(chart, [f"{HERE}/generations/{chart}-{version}.yaml"])

    def test_infra(self):
        self.assertIn("NodePort", find(self.of("infra", "1.2.4"), "ConfigMap")[0]["data"]["service"])
        self.assertEqual("gaie-pd-epp.llm-d-pd.svc.cluster.local", find(self.of("infra", "1.2.4"), "DestinationRule")[0]["spec"]["host"])
        self.assertEqual(["Telemetry"], [o["kind"] for o in self.of("infra", "1.3.6") if o["kind"] == "Telemetry"])
        self.assertEqual("LoadBalancer", find(self.of("infra", "1.4.0"), "AgentgatewayParameters")[0]["spec"]["service"]["spec"]["type"])
        self.assertEqual("infra-pd-inference-gateway", find(self.of("infra", "1.4.0"), "Ingress")[0]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"])

    def test_pool(self):
        old = self.of("inferencepool", "0.5.1")
        self.assertEqual({"llm-d.ai/inferenceServing": "true"}, find(old, "InferencePool")[0]["spec"]["selector"])
        self.assertIn("inference.networking.x-k8s.io", find(old, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"])
        self.assertEqual("ghcr.io/llm-d/llm-d-inference-scheduler:v0.2.1", find(old, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"])
        gke = self.of("inferencepool", "1.0.1")
        self.assertIn("--v=1", find(gke, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"])
        self.assertEqual(1, len(find(gke, "PodMonitoring")))
        self.assertEqual([], find(gke, "ServiceMonitor"))
        new = self.of("inferencepool", "1.2.0")
        self.assertIn("--ha-enable-leader-election", find(new, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"])
        self.assertEqual("gaie-pd-llm-d-pd-epp", find(new, "ClusterRole")[0]["metadata"]["name"])
        self.assertEqual("pd-gateway-sa-metrics-reader-secret", find(new, "Secret")[0]["metadata"]["name"])

    def server(self, objs, role_name="decode"):
        w, = [w for w, m, _ in stack.pods(objs) if m["labels"]["llm-d.ai/role"] == role_name]
        spec = next(s for x, _, s in stack.pods(objs) if x is w)
        return w, spec, spec["containers"][0]

    def test_modelservice(self):
        _, spec, c = self.server(self.of("modelservice", "0.2.7"))
        self.assertEqual(1, c["args"].count("--tensor-parallel-size"), "the guides' own flag is not given twice")
        self.assertEqual("ghcr.io/llm-d/llm-d-routing-sidecar:v0.2.0", spec["initContainers"][0]["image"])
        self.assertNotIn("--drain-timeout=120s", spec["initContainers"][0]["args"], "a flag that only ours has")
        w, spec, c = self.server(self.of("modelservice", "0.2.11"))
        self.assertEqual((8, "1"), (w["spec"]["replicas"], c["resources"]["limits"]["nvidia.com/gpu"]))
        _, _, c = self.server(self.of("modelservice", "0.2.13"))
        self.assertEqual({"privileged": True}, c["securityContext"])
        self.assertEqual(["/bin/sh", "-c"], c["command"])
        w, _, c = self.server(self.of("modelservice", "0.3.17"))
        self.assertEqual("random_model", w["spec"]["selector"]["matchLabels"]["llm-d.ai/model"])
        self.assertEqual("4", c["resources"]["limits"]["amd.com/gpu"])

    def test_wide(self):
        """16 ranks, 8 a pod: two pods a replica, not one; claims that belong to the release."""
        objs = self.of("modelservice", "0.4.12")
        w, spec, c = self.server(objs)
        self.assertEqual(("LeaderWorkerSet", 2), (w["kind"], w["spec"]["leaderWorkerTemplate"]["size"]))
        flag = lambda f: c["args"][c["args"].index(f) + 1]
        self.assertEqual(("16", "8"), (flag("--data-parallel-size"), flag("--data-parallel-size-local")))
        claim = find(objs, "ResourceClaimTemplate", "wide-ep-decode")[0]
        self.assertEqual(8, claim["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"])
        self.assertEqual("/model-cache/hub", next(e["value"] for e in c["env"] if e["name"] == "HF_HUB_CACHE"))

    def test_model_uris(self):
        for uri, path, volume in (("hf://o/m", "o/m", "emptyDir"), ("pvc://claim/a/b", "/model-cache/a/b", "persistentVolumeClaim"), ("oci://reg/x:1", "/model-cache", "image"),
                                  ("file:///m.gguf", "/m.gguf", None), ("pvc+hf://c/hub/o/m", "o/m", "persistentVolumeClaim")):
            _, spec, c = self.server(render("modelservice", [role(container={"mountModelVolume": True}) | {"modelArtifacts": {"uri": uri, "name": "n"}}]))
            self.assertEqual(path, c["args"][0])
            self.assertEqual([volume] if volume else [], [k for v in spec["volumes"] if v["name"] == "model-storage" for k in v if k != "name"])

    def test_counts(self):
        """One number, everything else from it."""
        for parallelism, devices, flags in (({"tensor": 4}, "4", {"--tensor-parallel-size": "4"}), ({"data": 8}, "8", {"--data-parallel-size": "8"}),
                                            ({"tensor": 2, "data": 4}, "8", {"--tensor-parallel-size": "2", "--data-parallel-size": "4"}), ({}, "1", {})):
            _, _, c = self.server(render("modelservice", [role(parallelism=parallelism)]))
            self.assertEqual(devices, c["resources"]["limits"]["nvidia.com/gpu"], parallelism)
            got = {a: c["args"][i + 1] for i, a in enumerate(c["args"]) if "parallel-size" in str(a)}
            self.assertEqual(flags, got)

    def test_nulls_are_gone(self):
        """The guides' helmfile set rdma/ib to null, which an API server reads as 0 and schedules for."""
        _, _, c = self.server(render("modelservice", [role(container={"resources": {"limits": {"rdma/ib": None, "memory": "1Gi"}, "requests": {"rdma/ib": None}}})]))
        self.assertNotIn("rdma/ib", {**c["resources"]["limits"], **c["resources"]["requests"]})

    def test_refusals_say_what_to_do(self):
        old = f"{HERE}/generations/modelservice-0.2.7.yaml"
        pool = f"{HERE}/generations/inferencepool-1.0.1.yaml"
        for chart, values, sets, reason in (
                ("modelservice", [old], ["routing.epp.create=true"], r"routing.epp.create: the endpoint picker is chart inferencepool"),
                ("modelservice", [old], ["routing.httpRoute.create=true"], r"httpRoute.create=true\) or by httproute.yaml"),
                ("modelservice", [old], ["routing.inferencePool.create=true"], r"set routing.inferencePool.create=false"),
                ("modelservice", [role(parallelism={"data": 8}, container={"resources": {"limits": {"nvidia.com/gpu": "1"}}})], [], r"decode: 1 of nvidia.com/gpu cannot hold .*decode.replicas and leave parallelism away"),
                ("modelservice", [role(parallelism={"data": 16, "dataLocal": 8})], [], r"needs 2 pods a replica: set multinode to true"),
                ("modelservice", [role()], ["accelerator.type=nvida"], r'"nvida" is unknown; known are amd, cpu, google'),
                ("modelservice", [role(containers=[])], [], r"decode.containers: one container"),
                ("modelservice", [role()], ["modelArtifacts.uri=s3://x"], r"hf://, pvc://, pvc\+hf://, oci:// or file://"),
                ("modelservice", [role(container={"ports": [{"name": "vllm", "containerPort": 8200}]}, monitoring={"podmonitor": {"enabled": True}})], [], r"portName is metrics, but the containers' ports are named vllm"),
                ("modelservice", [role(replicass=3)], [], r"additional properties 'replicass' not allowed"),
                ("modelservice", [role(replicas="two")], [], r"replicas.*integer|got string"),
                ("inferencepool", [pool], ["inferencePool.modelServers.matchLabels=null"], r"matchLabels: the labels of the model servers' pods"),
                ("inferencepool", [pool], ["inferenceExtension.pluginsConfigFile=x.yaml"], r"x.yaml, which inferenceExtension.pluginsCustomConfig does not have"),
                ("inferencepool", [pool], ["httpRoute.create=true"], r"httpRoute.gatewayName: the Gateway of chart infra"),
                ("inferencepool", [pool], ["inferencePool.apiVersion=v1"], r"apiVersion"),
                ("inferencepool", [pool], ["inferenceExtension.image.name=x"], r"image.hub goes with image.name"),
                ("infra", [{}], ["gateway.gatewayClassName=nginx"], r"gatewayClassName"),
                ("infra", [{}], ["gateway.gatewayClassName=builtin"], r"poolRelease: the release of chart inferencepool"),
                ("infra", [{}], ["gateway.listener=1"], r"additional properties 'listener' not allowed")):
            with self.subTest(f"{chart} {sets}"), self.assertRaisesRegex(stack.Refused, reason):
                render(chart, values, sets)

    def test_schemas_are_current(self):
        self.assertEqual("", stack.run(["python3", f"{ROOT}/charts/make-schemas", "--check"], check=False).stdout)
