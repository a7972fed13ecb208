"""`baton deploy render` makes what the guides' helmfile makes: object for object, in every environment; a plan's changes and nothing else."""
import concurrent.futures, os, subprocess, tempfile, unittest
import stack
from stack import GUIDE, all_objects, find, key


@unittest.skipUnless(stack.BIN, "run.py --bin DIR")
class Render(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def render(self, *args, helm=stack.HELM["4"], check=True, **env):
        out = tempfile.mkdtemp(dir=self.folder.name)
        done = subprocess.run([f"{stack.BIN}/baton", "deploy", "render", "--out", out, "--helm", helm, "--root", stack.ROOT, "-n", "llm-d-pd", *map(str, args)],
                              capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
                              env={**os.environ, "HELM_CACHE_HOME": f"{self.folder.name}/c", "HELM_CONFIG_HOME": f"{self.folder.name}/g", **env})
        if check:
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        return done, out

    def objects(self, out):
        found = []
        for name in sorted(os.listdir(out)):
            if name != "values.yaml":
                with open(f"{out}/{name}") as f:
                    found += stack.objects(f.read())
        return sorted(found, key=key)

    def settled(self, objs):
        """The flags that say what these objects have."""
        flags = []
        for role in ("prefill", "decode"):
            w, = [d for d in find(objs, "Deployment") if d["metadata"]["name"].endswith(f"-{role}")]
            server = w["spec"]["template"]["spec"]["containers"][0]
            tensor = {e["name"]: e.get("value") for e in server.get("env", [])}.get("TP_SIZE", "1")
            flags += [f"--{role}", w["spec"]["replicas"], f"--{role}-tp", tensor]
        return flags

    def test_same_as_the_helmfile(self):
        rows = {name: row for name, row in stack.matrix().items() if name in stack.ENVIRONMENTS or name in ("amd+USE_HOST_NETWORK", "postfix pd-2", "GATEWAY=builtin")}
        wanted = {name: sorted(all_objects(stack.rendered()[name]), key=key) for name in rows}

        def rendered(name):
            environment, env = rows[name]
            gateway = ["--gateway", env["GATEWAY"]] if "GATEWAY" in env else []
            # A slow load, so that the guide's own numbers carry it; as many devices as they take.
            return self.render("-e", environment, "--apis", "all", *self.settled(wanted[name]), "--devices", 64, "--prompt-tokens", 100, "--output-tokens", 100, "--tpot", 1000,
                               "--ttft", 60000, *gateway, **{k: v for k, v in env.items() if k != "GATEWAY"})[1]

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, out in zip(rows, pool.map(rendered, rows)):
                with self.subTest(name):
                    self.assertEqual(wanted[name], self.objects(out))

    def test_a_plan_changes_what_it_says(self):
        done, out = self.render("-e", "default", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--prefill", 3, "--prefill-tp", 1, "--decode", 2, "--decode-tp", 2, "--context", 16000, "--apis", "all")
        objs = self.objects(out)
        self.assertEqual(["--prefill", 3, "--prefill-tp", "1", "--decode", 2, "--decode-tp", "2"], self.settled(objs))
        for w in find(objs, "Deployment"):
            if "modelservice" in w["metadata"]["name"]:
                args = w["spec"]["template"]["spec"]["containers"][0]["args"]
                self.assertEqual("16000", args[args.index("--max-model-len") + 1])
                self.assertIn("meta-llama/Llama-3.1-8B-Instruct", args)
        gpus = sorted(int(c["resources"]["limits"]["nvidia.com/gpu"]) for w in find(objs, "Deployment") for c in w["spec"]["template"]["spec"]["containers"] if "nvidia.com/gpu" in c.get("resources", {}).get("limits", {}))
        self.assertEqual([1, 2], gpus)
        # The same through the helmfile, as the page says it.
        releases = stack.helmfile(f"{GUIDE}/helmfile.yaml.gotmpl", "default", "llm-d-pd", {"PLAN_VALUES": f"{out}/values.yaml"})
        through = [o for r in releases for o in stack.objects(stack.helm_template(r["name"], r["chart"], r["values"]))]
        self.assertEqual(sorted(through, key=key), objs)
        self.assertIn("PLAN_VALUES=", done.stdout)

    def test_helm_3(self):
        _, four = self.render("-e", "kind")
        with_four = self.objects(four)
        _, three = self.render("-e", "kind", helm=stack.HELM["3"])
        self.assertEqual(with_four, self.objects(three))
        self.assertEqual(set(), {o["kind"] for o in with_four} & {"PodMonitor", "ServiceMonitor", "Telemetry", "Gateway", "InferencePool"}, "a bare cluster takes it")

    def test_without_helm(self):
        done, out = self.render("-e", "kind", helm="/nowhere/helm")
        self.assertEqual(["values.yaml"], os.listdir(out))
        self.assertIn("helmfile apply -e kind", done.stdout)

    def test_refusals(self):
        for args, words in ((["-e", "nowhere"], "no environment"), (["-e", "default", "--model", "nobody/knows"], "no model"), (["-e", "default", "--devices", 1], "need 2 devices"),
                            (["-e", "default", "--gateway", "nginx"], "no gateway"), (["-e", "default", "--root", "/"], "clone of this repository")):
            done, _ = self.render(*args, check=False)
            self.assertEqual(1, done.returncode, done.stdout)
            self.assertIn(words, done.stdout + done.stderr)
