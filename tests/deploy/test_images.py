"""The images: their Dockerfiles are current and read right, their packages are the ones the programs need, and what they make starts and serves."""
import copy, json, os, re, runpy, shutil, stat, subprocess, tempfile, time, unittest, urllib.error
import images, live, stack
from stack import ROOT, all_objects, containers, find, pods

VERSION = re.search(r"(?m)^project\(baton VERSION (\S+)", open(f"{ROOT}/CMakeLists.txt").read())[1]
PROGRAM = {"engine": "baton-engine", "sidecar": "baton-sidecar", "router": "baton-router", "tools": "baton"}
IN_EVERY_BASE = {"libc6", "libgcc-s1"}
MIB = 1 << 20


def build_folder():
    return os.path.dirname(stack.BIN)


class Written(unittest.TestCase):
    """What can be said of the files alone."""
    def test_generated(self):
        self.assertEqual("", stack.run(["python3", f"{ROOT}/docker/make-dockerfiles", "--check"], check=False).stdout)

    def test_stages(self):
        """The first compiles what the last copies, from the packages of tools/packages, and names them nowhere else."""
        for image, program in PROGRAM.items():
            arguments, stages = images.parse(images.FILES[image])
            compiles, final = stages
            self.assertEqual(("${BASE}", "${BASE}", "build"), (compiles["from"], final["from"], compiles["name"]))
            runs = [rest for word, rest in compiles["steps"] if word == "RUN"]
            self.assertEqual([f"docker/install-packages $(grep -v '^#' tools/packages)",
                              f"cmake --preset release -DBATON_BENCHES=OFF && ninja -C build/release {program}",
                              f"cmake --install build/release --prefix /out --component {image} --strip",
                              'find /out -exec touch -hd "@${SOURCE_DATE_EPOCH}" {} +'], runs)
            self.assertEqual(set(), {w for w, _ in final["steps"]} - {"ARG", "RUN", "COPY", "LABEL", "ENV", "EXPOSE", "USER", "ENTRYPOINT"})

    def test_what_the_interpreter_does_not_do_it_refuses(self):
        for line in ("HEALTHCHECK NONE", "ADD a b", "SHELL [\"sh\"]", "VOLUME /x"):
            with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as f:
                f.write(f"FROM a\n{line}\n")
                f.flush()
                with self.assertRaises(images.Unknown):
                    images.parse(f.name)

    def test_images_of_the_charts(self):
        """Whatever the charts call baton/... is built here, under that name and version."""
        asked = {c["image"] for releases in stack.rendered().values() for _, _, spec in pods(all_objects(releases)) for c in containers(spec) if c["image"].startswith("baton/")}
        self.assertEqual({f"baton/{i}:{VERSION}" for i in ("engine-demo", "router", "sidecar")}, asked)
        done = stack.run(["docker/build", "--dry-run"], {"BUILDER": "docker", "REGISTRY": ""}, ROOT).stdout
        tags = re.findall(r"-f docker/Dockerfile\.(\S+) .*-t (\S+) \.", done)
        self.assertEqual([(i, f"baton/{i}:{VERSION}") for i in ("engine", "sidecar", "router", "tools", "engine-demo")], tags)
        self.assertIn("-t example.com/team/baton/router:", stack.run(["docker/build", "--dry-run", "router"], {"REGISTRY": "example.com/team"}, ROOT).stdout)
        self.assertEqual(2, subprocess.run(["docker/build", "--dry-run", "hpu"], cwd=ROOT, capture_output=True).returncode)

    def test_demo_model(self):
        """There is no pip in the tools' image, whose configuration `baton pull` would ask for an index: the stage names one."""
        model, _ = images.parse(images.FILES["engine-demo"])[1]
        self.assertEqual(["ARG", "RUN"], [w for w, _ in model["steps"]])
        self.assertRegex(model["steps"][0][1], "^PIP_INDEX_URL=https://")

    def test_ports_are_the_charts(self):
        for image, environment in (("router", "kind"), ("sidecar", "kind"), ("engine", "kind")):
            named = {p["containerPort"] for _, _, spec in pods(all_objects(stack.rendered()[environment])) for c in containers(spec)
                     if c["image"].startswith(f"baton/{image}") for p in c["ports"]}
            exposed = {int(p) for w, rest in images.parse(images.FILES[image])[1][-1]["steps"] if w == "EXPOSE" for p in rest.split()}
            self.assertEqual(named, exposed, image)

    def test_gaudi(self):
        """The guide's own command works: nothing is wanted of the context, and its name is the one of the values."""
        _, stages = images.parse(images.FILES["hpu"])
        self.assertNotIn("COPY", [w for w, _ in stages[0]["steps"]])
        with open(images.FILES["hpu"]) as f:
            command, = re.findall(r"(?m)^#   (docker build .*)$", f.read())
        with open(f"{stack.GUIDE}/README.hpu.md") as f:
            self.assertIn(f"cd docker && {command}", f.read())
        name = re.search(r"-t (\S+)", command)[1]
        for _, meta, spec in pods(stack.rendered()["hpu"]["ms-pd"]):
            self.assertEqual(f"docker.io/library/{name}:latest", spec["containers"][0]["image"])


@unittest.skipUnless(stack.BIN, "run.py --bin DIR")
class Installed(unittest.TestCase):
    """cmake --install by component, on the build that is there."""
    def install(self, component, folder):
        stack.run(["cmake", "--install", build_folder(), "--prefix", folder, "--component", component, "--strip"])
        return sorted(os.path.relpath(f"{at}/{n}", folder) for at, _, names in os.walk(folder) for n in names)

    def test_components(self):
        for component, program in PROGRAM.items():
            with tempfile.TemporaryDirectory() as folder:
                self.assertEqual([f"bin/{program}", "share/doc/baton/LICENSE"], self.install(component, folder))
                self.assertLess(os.path.getsize(f"{folder}/bin/{program}"), os.path.getsize(f"{stack.BIN}/{program}"), "stripped")

    @unittest.skipUnless(shutil.which("dpkg-query"), "no Debian")
    def test_packages_are_what_programs_need(self):
        """Each library that a program is linked with comes from a package of its image, and each package of the image is for one."""
        table = runpy.run_path(f"{ROOT}/docker/make-dockerfiles")["IMAGES"]
        for component, (program, _, libraries, others, *_) in table.items():
            dynamic = stack.run(["readelf", "-d", f"{stack.BIN}/{program}"]).stdout
            needed = set()
            for library in re.findall(r"\(NEEDED\).*\[(\S+)\]", dynamic):
                owners = stack.run(["dpkg-query", "-S", f"*-linux-gnu/{library}"]).stdout
                needed |= {re.split("[:,]", line)[0] for line in owners.splitlines() if line.endswith(f"/{library}")}
            self.assertEqual(needed - IN_EVERY_BASE, set(libraries.split()), program)
            self.assertEqual(sorted(f"{libraries} {others}".split()), images.packages(component))

    def test_context_suffices(self):
        """What .dockerignore lets through configures by the images' own command, and no program is compiled from anything else."""
        with open(f"{ROOT}/.dockerignore") as f:
            lines = [l.strip() for l in f if l.strip() and not l.startswith("#")]
        self.assertEqual("*", lines[0])
        kept = [l.removeprefix("!") for l in lines[1:] if l.startswith("!")]
        self.assertEqual(len(lines) - 1, len(kept))
        read = {os.path.relpath(p, ROOT) for p in re.findall(r"(?m)^    (\S+)$", stack.run(["ninja", "-C", build_folder(), "-t", "deps"]).stdout) if p.startswith(f"{ROOT}/")}
        outside = {p for p in read if not any(p == k or p.startswith(f"{k}/") for k in kept) and not p.startswith(("build", "tests/", "bench/"))}
        self.assertTrue(read)
        self.assertEqual(set(), outside)
        with tempfile.TemporaryDirectory() as context:
            for k in kept:
                os.makedirs(os.path.dirname(f"{context}/{k}"), exist_ok=True)
                (shutil.copytree if os.path.isdir(f"{ROOT}/{k}") else shutil.copy2)(f"{ROOT}/{k}", f"{context}/{k}")
            stack.run(["cmake", "--preset", "release", "-DBATON_BENCHES=OFF"], cwd=context)
            missing = stack.run(["ninja", "-C", "build/release", "-n", *PROGRAM.values()], cwd=context)
            self.assertNotIn("missing and no known rule", missing.stderr + missing.stdout)


@unittest.skipUnless(stack.BIN, "run.py --bin DIR")
class Assembled(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        why = images.why_not()
        if why:
            raise unittest.SkipTest(why)
        cls.folder = tempfile.TemporaryDirectory(dir=images.AT)
        cls.base = images.files(f"{images.AT}/base")
        cls.images = {name: images.make(name, f"{cls.folder.name}/{name}", build_folder()) for name in PROGRAM}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def ask(self, image, *argv):
        return subprocess.run(images.inside(image, argv), capture_output=True, text=True, timeout=120)

    def test_entry_points(self):
        for name, image in self.images.items():
            entry = [image.entrypoint[0]]  # `baton-engine serve --help` says the same
            for words in (entry, image.entrypoint):
                done = self.ask(image, *words, "--version")
                self.assertEqual((0, f"{'baton' if name == 'tools' else PROGRAM[name]} {VERSION}\n"), (done.returncode, done.stdout), done.stderr)
                done = self.ask(image, *words, "--help")
                self.assertEqual(0, done.returncode, done.stderr)
                self.assertIn("usage: baton", done.stdout)
        for what in ("bench", "verify", "top", "pull"):
            self.assertEqual(0, self.ask(self.images["tools"], "baton", what, "--help").returncode)

    def test_engine_answers_to_curl(self):
        done = self.ask(self.images["engine"], "curl", "--version")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(0, self.ask(self.images["engine"], "sleep", "0").returncode, "a hook of the charts before Kubernetes 1.30")

    def test_users_and_files(self):
        asked = {(c.get("securityContext", {}) | spec.get("securityContext", {}))["runAsUser"] for _, _, spec in pods(all_objects(stack.rendered()["kind"])) for c in containers(spec)}
        for name, image in self.images.items():
            self.assertEqual({image.user}, {f"{u}:{u}" for u in asked}, name)
            new = {p: s for p, s in images.files(image.root).items() if p not in self.base}
            self.assertIn(f"usr/local/bin/{PROGRAM[name]}", new)
            for path, s in new.items():
                self.assertFalse(s.st_mode & (stat.S_ISUID | stat.S_ISGID), f"{name}: {path} is setuid")
                self.assertFalse(s.st_mode & stat.S_IWOTH and not stat.S_ISLNK(s.st_mode), f"{name}: {path} is world-writable")
                if os.getuid() == 0:
                    self.assertNotEqual(int(image.user.split(":")[0]), s.st_uid, f"{name}: {path} is the user's own")
            self.assertEqual([], [p for p in new if p.startswith(("var/lib/apt/lists/", "var/cache/apt/", "var/log/"))], name)
            self.assertEqual((VERSION, "Apache-2.0"), tuple(image.labels[f"org.opencontainers.image.{what}"] for what in ("version", "licenses")))
            self.assertEqual(self.base.keys(), self.base.keys() & images.files(image.root).keys(), f"{name}: nothing of the base is gone")

    def test_sizes(self):
        """Stated, and not more than a few times the programs: a package too many would be seen."""
        base = images.size(self.base.values())
        print(f"\nimages, unpacked: base {base / MIB:.0f} MiB", end="")
        for name, image in self.images.items():
            new = {p: s for p, s in images.files(image.root).items() if p not in self.base}
            program = new[f"usr/local/bin/{PROGRAM[name]}"].st_size
            print(f"; {name} + {images.size(new.values()) / MIB:.1f} ({PROGRAM[name]} {program / MIB:.1f})", end="")
            self.assertLess(images.size(new.values()), 40 * MIB, name)
        print(flush=True)

    def test_they_serve(self):
        """Router, sidecar and two engines, each from its image with the chart's own arguments: a prompt goes over all of them."""
        if not os.path.exists(f"{ROOT}/models/SmolLM2-135M-Instruct.Q4_1.gguf"):
            self.skipTest("no demo model: baton pull smollm2 --model-dir models")
        demo = images.make("engine-demo", f"{self.folder.name}/engine-demo", build_folder())
        objs = all_objects(stack.rendered()["kind"])
        of = lambda image: {m["labels"].get("llm-d.ai/role", ""): c for _, m, spec in pods(objs) for c in containers(spec) if c["image"].startswith(f"baton/{image}:")}
        prefill, decode, kv_p, kv_d, proxy, proxy_metrics, http, admin = (live.free_port() for _ in range(8))
        router = copy.copy(self.images["router"])
        router.root = shutil.copytree(router.root, f"{self.folder.name}/router-with-config", symlinks=True, copy_function=os.link)
        running, logs = [], tempfile.TemporaryDirectory()
        self.addCleanup(logs.cleanup)
        os.mkdir(f"{router.root}/config")  # the ConfigMap's mount
        for file, text in next(o for o in find(objs, "ConfigMap") if "pd-config.yaml" in o["data"])["data"].items():
            with open(f"{router.root}/config/{file}", "w") as f:
                f.write(text)
        with open(f"{router.root}/config/endpoints.json", "w") as f:
            json.dump({"endpoints": [{"name": n, "address": "127.0.0.1", "port": str(p), "labels": {"llm-d.ai/role": n}} for n, p in (("prefill", prefill), ("decode", proxy))]}, f)

        def start(image, container, args, env=None):
            argv = container.get("command", image.entrypoint) + args
            log = open(f"{logs.name}/{len(running)}", "w+")
            running.append((subprocess.Popen(images.inside(image, map(str, argv), env), stdout=log, stderr=subprocess.STDOUT), log))

        def said():
            return "".join(open(log.name).read()[-1500:] for _, log in running)

        def wait(url):
            for _ in range(900):
                self.assertTrue(all(p.poll() is None for p, _ in running), said())
                try:
                    return live.get(url, timeout=2)
                except OSError:
                    time.sleep(0.2)
            self.fail(f"{url} does not answer: {said()}")

        try:
            for role, port, kv in (("prefill", prefill, kv_p), ("decode", decode, kv_d)):
                c = of("engine-demo")[role]
                start(demo, c, [*c["args"], "--host", "127.0.0.1", "--port", port, "--threads", 1, "--kv-cache-memory-bytes", 64 << 20, "--max-model-len", 512],
                      {"VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1", "VLLM_NIXL_SIDE_CHANNEL_PORT": kv})
            c = of("sidecar")["decode"]
            start(self.images["sidecar"], c, [*c["args"], "--host=127.0.0.1", f"--port={proxy}", f"--vllm-port={decode}", f"--metrics-port={proxy_metrics}"])
            args = of("router")[""]["args"]
            for flag in ("--endpoint-selector", "--endpoint-target-ports", "--pool-namespace"):  # those that name a cluster
                at = args.index(flag)
                args = args[:at] + args[at + 2:]
            start(router, {}, [*args, "--host", "127.0.0.1", "--http-port", http, "--metrics-port", admin, "--grpc-port", 0, "--grpc-health-port", 0, "--grpc-host", "127.0.0.1",
                               "--endpoints", "/config/endpoints.json", "--drain-timeout", "1s"])
            for port in (prefill, decode, proxy):
                wait(f"http://127.0.0.1:{port}/health")
            wait(f"http://127.0.0.1:{http}/health")
            for i in range(300):
                try:
                    answer = json.loads(live.get(f"http://127.0.0.1:{http}/v1/completions", {"model": "smollm2", "prompt": f"{i} times: how are you today? " * 8, "max_tokens": 4}, 120))
                except urllib.error.HTTPError as e:
                    self.assertEqual(503, e.code, said())  # no worker is known yet
                else:
                    self.assertEqual(4, answer["usage"]["completion_tokens"])
                    if "pd_prefill_status_total" in live.get(f"http://127.0.0.1:{proxy_metrics}/metrics"):
                        break
                time.sleep(0.2)
            else:
                self.fail(f"no prompt was handed over: {said()}")
        finally:
            for p, _ in running:
                p.terminate()
            codes = []
            for p, log in running:
                try:
                    codes.append(p.wait(90))
                except subprocess.TimeoutExpired:
                    p.kill()
                    codes.append(p.wait())
                log.close()
        self.assertEqual([0] * 4, codes, "each ends by itself on SIGTERM")
