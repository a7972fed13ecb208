"""The guides' pages and scripts, run: every `shell` block in order, with a real helm and kubectl, against an API server."""
import glob, hashlib, json, os, re, stat, unittest
import cluster, live, stack
from stack import ROOT
from test_cluster import Shell

PAGES = sorted(glob.glob(f"{ROOT}/guides/**/README*.md", recursive=True) + glob.glob(f"{ROOT}/charts/README.md") + glob.glob(f"{ROOT}/docker/README.md") + glob.glob(f"{ROOT}/docs/monitoring/*.md"))
DP8 = f"{ROOT}/guides/llama-3.1-8b-dp8"

# What vllm bench serve writes, with the numbers of the guide's own table.
RESULTS = {"32": (3710, 5463, 829, 7.41, 53.9), "64": (5814, 9195, 1470, 8.46, 34.4), "128": (7590, 15252, 3700, 9.01, 26.4)}
ROWS = """| 32          | 3,710        | 5,463      | 829ms     | 7.41ms    | 53.9s    |
| 64          | 5,814        | 9,195      | 1.47s     | 8.46ms    | 34.4s    |
| 128         | 7,590        | 15,252     | 3.70s     | 9.01ms    | 26.4s    |
"""
VLLM = '''#!/usr/bin/env python3
import json, sys
a = sys.argv
get = lambda f: a[a.index(f) + 1]
out, peak, ttft, tpot, took = {results}[get("--max-concurrency")]
assert a[1:3] == ["bench", "serve"] and "--ignore-eos" in a
json.dump({{"date": "d", "num_prompts": int(get("--num-prompts")), "completed": int(get("--num-prompts")), "duration": took, "output_throughput": out,
           "max_output_tokens_per_s": peak, "mean_ttft_ms": ttft, "median_ttft_ms": 1, "mean_tpot_ms": tpot}}, open(get("--result-dir") + "/" + get("--result-filename"), "w"))
'''


class Guides(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.kube = cluster.Cluster().__enter__()
        self.addCleanup(lambda: self.kube.__exit__())
        self.shell = Shell(self.kube)
        self.addCleanup(self.shell.close)
        # In a pod: kubectl exec runs the command here, with stand-ins for curl and vllm.
        self.put("kubectl", f'#!/bin/bash\nfor a in "$@"; do if [ "$a" = exec ]; then while [ "$1" != -- ]; do shift; done; shift; PATH={self.shell.bin}/pod:$PATH exec "$@"; fi; done\n'
                            f'exec {stack.KUBECTL} "$@"\n')
        os.mkdir(f"{self.shell.bin}/pod")
        self.put("pod/curl", '#!/bin/sh\necho \'{"choices": [{"text": " AI is"}]}\'\n')
        self.put("pod/vllm", VLLM.format(results=RESULTS))

    def put(self, name, text):
        path = f"{self.shell.bin}/{name}"
        if os.path.lexists(path):
            os.unlink(path)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    @staticmethod
    def blocks(page):
        with open(page) as f:
            return re.findall(r"(?ms)^```shell\n(.*?)^```", f.read())

    @unittest.skipUnless(stack.BIN and glob.glob(f"{ROOT}/models/*.gguf"), "run.py --bin DIR, and the demo model: baton pull smollm2 --model-dir models")
    def test_newcomers_path(self):
        """docs/deploy.md, with our own programs on this machine and the API server as the cluster."""
        os.symlink(f"{stack.BIN}/baton", f"{self.shell.bin}/baton")
        page = f"{ROOT}/docs/deploy.md"
        env = {"PORT": str(live.free_port()), "BATON_MODEL_DIR": f"{ROOT}/models", "BATON_STATE_DIR": f"{self.shell.bin}/state"}
        script = "\n".join(self.blocks(page)).replace("/tmp/", f"{self.shell.bin}/")
        done = self.shell("set -o pipefail\ntrap 'baton down --port $PORT || true' EXIT\n" + script, cwd=ROOT, check=False, **env)
        self.assertEqual(0, done.returncode, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        self.assertEqual(2, done.stdout.count("verdict: right"))
        self.assertIn("ok    KV was handed over", done.stdout)
        self.assertIn("ms-pd-llm-d-modelservice-prefill", self.shell("kubectl get pods -n baton").stdout)

    def test_pages(self):
        for page in PAGES:
            blocks = self.blocks(page)
            with self.subTest(os.path.relpath(page, ROOT)):
                with open(page) as f:
                    self.assertEqual(set(), set(re.findall(r"(?m)^```(\w+)", f.read())) - {"shell", "console", "yaml"}, "blocks are shell (run), console (by hand) or yaml")
                if not blocks:
                    continue
                self.kube.objects = {k: v for k, v in self.kube.objects.items() if k[1] in ("nodes",) or k[3] == "default"}
                done = self.shell("set -o pipefail\n" + "\n".join(blocks), cwd=ROOT, check=False, RESULTS=f"{self.shell.bin}/results")
                self.assertEqual(0, done.returncode, f"{done.stdout[-1500:]}\n{done.stderr[-1500:]}")

    def test_links(self):
        for page in PAGES:
            with open(page) as f:
                for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", f.read()):
                    if not target.startswith("http"):
                        self.assertTrue(os.path.exists(f"{os.path.dirname(page)}/{target}"), f"{page}: {target}")

    def test_quickstart_is_the_guide(self):
        self.assertEqual(os.path.realpath(f"{ROOT}/quickstart/examples/pd-disaggregation"), stack.GUIDE)
        self.assertIn("infra-pd", self.shell("helmfile list", cwd=f"{ROOT}/quickstart/examples/pd-disaggregation").stdout)

    # ---- guides/llama-3.1-8b-dp8

    def test_deploy_from_nothing(self):
        done = self.shell("./deploy.sh", cwd=DP8, HF_TOKEN="hf_abc")
        self.assertIn("5/5 pods", done.stdout)
        pods = self.shell("kubectl get pods -n llm-d-llama31 --no-headers").stdout.splitlines()
        count = lambda word, ready: sum(word in p and p.split()[1] == ready for p in pods)
        self.assertEqual((8, 8, 1, 1), (count("prefill", "1/1"), count("decode", "2/2"), count("epp", "1/1"), count("gateway-istio", "1/1")))
        again = self.shell("./deploy.sh", cwd=DP8)  # the token is there
        self.assertIn("Next:", again.stdout)
        self.assertEqual(8 + 8 + 2, len(self.shell("kubectl get pods -n llm-d-llama31 -o name").stdout.split()))

    def test_deploy_says_what_is_missing(self):
        self.assertIn("set HF_TOKEN", self.shell("./deploy.sh", cwd=DP8, check=False, HF_TOKEN="").stderr)
        del self.kube.rows["inference.networking.k8s.io/v1", "inferencepools"]
        done = self.shell("./deploy.sh", cwd=DP8, check=False, HF_TOKEN="x")
        self.assertEqual(1, done.returncode)
        self.assertIn("install-gateway-provider-dependencies.sh", done.stderr)
        self.assertIn("unknown argument", self.shell("./deploy.sh --now", cwd=DP8, check=False).stderr)

    def test_deploy_heals_a_lost_route(self):
        self.shell("./deploy.sh", cwd=DP8, HF_TOKEN="t")
        self.shell("kubectl delete httproute llm-d-llama31-pd-disaggregation -n llm-d-llama31")
        self.assertIn("httproute/llm-d-llama31-pd-disaggregation is missing", self.shell("./run-benchmark.sh 8 32", cwd=DP8, check=False, RESULTS=self.shell.bin).stderr)
        self.shell("./deploy.sh", cwd=DP8)
        self.assertIn("llm-d-llama31-pd-disaggregation", self.shell("kubectl get httproute -n llm-d-llama31").stdout)

    def test_route_and_pool_files(self):
        rs = stack.helmfile(f"{DP8}/helmfile.yaml")
        pool = next(r for r in rs if r["name"] == "gaie-llama31")
        made = stack.objects(stack.helm_template(pool["name"], pool["chart"], pool["values"], "llm-d-llama31"))
        for file, kind in (("httproute.yaml", "HTTPRoute"), ("inferencepool.yaml", "InferencePool")):
            with open(f"{DP8}/{file}") as f:
                written = stack.load(f)
            o, = stack.find(made, kind)
            self.assertEqual((written["metadata"]["name"], written["spec"]), (o["metadata"]["name"], o["spec"]))

    def test_benchmark(self):
        self.shell("./deploy.sh", cwd=DP8, HF_TOKEN="t")
        done = self.shell("./run-benchmark.sh 200 32 64 128", cwd=DP8, RESULTS=f"{self.shell.bin}/results")
        self.assertIn(ROWS, done.stdout)
        self.assertEqual(3, len(os.listdir(f"{self.shell.bin}/results")))
        with open(f"{self.shell.bin}/results/bench-200-64-1000-1000.json") as f:
            self.assertEqual(34.4, json.load(f)["duration"])
        self.assertIn("is no count", self.shell("./run-benchmark.sh many", cwd=DP8, check=False).stderr)
        self.put("pod/curl", "#!/bin/sh\necho '{\"error\": {\"message\": \"no endpoints\"}}'\n")
        self.assertIn("step 4", self.shell("./run-benchmark.sh 1 32", cwd=DP8, check=False, RESULTS=self.shell.bin).stderr)

    # ---- guides/prereq

    def test_gateway_dependencies(self):
        crd = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: b}\n"
        for name in ("gateway-api", "inference-extension"):
            with open(f"{self.shell.bin}/{name}.yaml", "w") as f:
                f.write(crd % name)
        at = f"{ROOT}/guides/prereq/gateway-provider"
        env = {"CRD_DIR": self.shell.bin}
        self.shell("./install-gateway-provider-dependencies.sh", cwd=at, **env)
        self.assertIn("inference-extension", self.shell("kubectl get cm").stdout)
        self.shell("./install-gateway-provider-dependencies.sh delete; ./install-gateway-provider-dependencies.sh delete", cwd=at, **env)
        self.assertNotIn("inference-extension", self.shell("kubectl get cm").stdout)
        self.assertEqual(1, self.shell("./install-gateway-provider-dependencies.sh remove", cwd=at, check=False).returncode)
        for file in glob.glob(f"{at}/*.helmfile.yaml"):
            self.assertTrue(all(r["version"] for r in stack.helmfile(file)))

    def test_install_deps(self):
        """Against a stand-in for curl: what is missing is fetched and checked, what a checksum denies is not installed."""
        at, web, to = f"{ROOT}/guides/prereq/client-setup", f"{self.shell.bin}/web", f"{self.shell.bin}/to"
        for d in (web, to):
            os.mkdir(d)
        self.put("web/tool", "#!/bin/sh\necho kubectl v1.33.4\n")
        with open(f"{web}/tool", "rb") as f:
            good = hashlib.sha256(f.read()).hexdigest()
        # Everything but kubectl is there.
        for tool, says in (("git", "git version 2.40.0"), ("helm", "v3.19.0"), ("helmfile", "helmfile version 1.3.2"), ("yq", "yq (https://github.com/mikefarah/yq/) version v4.47.1")):
            os.path.lexists(f"{self.shell.bin}/{tool}") and os.unlink(f"{self.shell.bin}/{tool}")
            self.put(tool, f'#!/bin/sh\n[ "$1" = plugin ] && {{ echo "diff 3.14.0"; exit; }}\necho "{says}"\n')
        self.put("kubectl", "#!/bin/sh\necho 'Client Version: v1.20.0'\n")
        self.put("curl", f'#!/bin/bash\n[ "$1" = --version ] && {{ echo "curl 8.0.0"; exit; }}\nwhile [ $# -gt 0 ]; do case $1 in -o) out=$2; shift;; http*) url=$1;; esac; shift; done\n'
                         f'case $url in *.sha256) cat {web}/sum;; *) cp {web}/tool "$out"; echo "$url" >>{web}/log;; esac\n')
        check = self.shell("./install-deps.sh --check", cwd=at, check=False)
        self.assertEqual((1, True), (check.returncode, "kubectl 1.20.0 (needs 1.28.0)" in check.stdout))
        for answer, code in (("0" * 64, 1), (good, 0)):
            with open(f"{web}/sum", "w") as f:
                f.write(answer)
            done = self.shell("./install-deps.sh", cwd=at, check=False, BIN_DIR=to)
            self.assertEqual(code, done.returncode, done.stderr)
            self.assertEqual(code == 0, os.path.exists(f"{to}/kubectl"))
        with open(f"{web}/log") as f:
            self.assertRegex(f.read(), r"^https://dl.k8s.io/release/v1.33.4/bin/linux/(amd64|arm64)/kubectl\n")
