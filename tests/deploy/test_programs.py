"""Every argument that a chart gives to one of our programs is one that the program takes."""
import os, re, shutil, subprocess, tempfile, unittest
import stack
from stack import all_objects, containers, find, pods


@unittest.skipUnless(stack.BIN, "run.py --bin DIR")
class Programs(unittest.TestCase):
    def ask(self, program, *args, env=None):
        return subprocess.run([f"{stack.BIN}/{program}", *args], capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})})

    def distinct(self, image):
        """(arguments, a ConfigMap of the same name as the workload) of our containers, each kind once."""
        seen = {}
        everything = {name: all_objects(releases) for name, releases in stack.rendered().items()}
        everything["charts/baton"] = stack.objects(stack.helm_template("baton", f"{stack.ROOT}/charts/baton"))
        for name, objs in everything.items():
            for w, _, spec in pods(objs):
                for c in containers(spec):
                    if c["image"].startswith(image):
                        maps = find(objs, "ConfigMap", w["metadata"]["name"])
                        seen.setdefault((tuple(c.get("args", [])), str(maps)), (name, c, maps))
        self.assertTrue(seen, f"no container of {image}")
        return seen.values()

    def test_router(self):
        for name, c, maps in self.distinct("baton/router"):
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                for file, text in maps[0]["data"].items():
                    with open(f"{folder}/{file}", "w") as f:
                        f.write(text)
                args = [a.replace("/config/", folder + "/") for a in c["args"]]
                done = self.ask("baton-router", "--validate-config", *args)
                self.assertEqual(0, done.returncode, f"{args}\n{done.stderr}")
                self.assertNotIn("ignored", done.stderr)
                # P/D really: both profiles, a decider that hands over.
                if "pd-config.yaml" in " ".join(args):
                    printed = self.ask("baton-router", "--print-config", *args)
                    self.assertIn("always-disagg-pd-decider", printed.stdout + printed.stderr)

    def test_a_wrong_flag_would_be_seen(self):
        for program, args in (("baton-router", ["--validate-config", "--pool-name", "p"]), ("baton-engine", ["serve", "m", "--print-config"])):
            self.assertIn("ignored", self.ask(program, *args, "--no-such-flag=1").stderr)
        self.assertNotEqual(0, self.ask("baton-sidecar", "--no-such-flag=1", "--print-config").returncode)

    def test_sidecar(self):
        for name, c, _ in self.distinct("baton/sidecar"):
            done = self.ask("baton-sidecar", *c["args"], "--print-config")
            self.assertEqual(0, done.returncode, f"{name}: {c['args']}\n{done.stderr}")
            port = next(p["containerPort"] for p in c["ports"] if p["name"] == "http")
            self.assertRegex(done.stdout, rf"(?m)^port: {port}\b")
            self.assertRegex(done.stdout, r"(?m)^model-server-port: 8200\b")

    def test_engine(self):
        for name, c, _ in self.distinct("baton/engine"):
            self.assertEqual(["baton-engine", "serve"], c["command"])
            env = {e["name"]: e.get("value", "127.0.0.1") for e in c["env"]}
            done = self.ask("baton-engine", "serve", *c["args"], "--print-config", env=env)
            self.assertEqual(0, done.returncode, f"{name}: {c['args']}\n{done.stderr}")
            self.assertNotRegex(done.stderr, "ignored|not implemented")
            self.assertRegex(done.stdout, r"(?m)^kv-lease: 30\b")

    def test_engine_takes_the_guides_arguments(self):
        """What the guides tell vLLM, baton-engine takes too, so that either image serves the same values."""
        for name in ("default", "xpu", "hpu", "gke_tpu", "amd"):
            for w, meta, spec in pods(stack.rendered()[name]["ms-pd"]):
                args = [a for a in spec["containers"][0]["args"]]
                done = self.ask("baton-engine", "serve", *args, "--print-config", env={"VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1"})
                self.assertEqual(0, done.returncode, f"{name}: {args}\n{done.stderr}")


class Hooks(unittest.TestCase):
    @unittest.skipUnless(shutil.which("curl"), "no curl, which the model servers' images have")
    def test_decode_hook_waits_for_streams(self):
        """The hook of a vLLM decode pod ends when the server has nothing running, or its time is over; and at once without a server."""
        import http.server, threading
        script = find(stack.rendered()["default"]["ms-pd"], "Deployment", "ms-pd-llm-d-modelservice-decode")[0]["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2]
        answers, asked = ["3.0", "0.0", "1.0", "0.0"], []

        class Metrics(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_GET(self):
                asked.append(self.path)
                running, waiting = (answers[:2] if len(asked) == 1 else answers[2:] if len(asked) == 2 else ["0.0", "0.0"])
                text = f'vllm:num_requests_running{{engine="0",model_name="m"}} {running}\nvllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}\nvllm:other 7\n'
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            done = subprocess.run(["sh", "-c", re.sub(r"^sleep \d+; ", "", script).replace(":8200/", f":{server.server_address[1]}/")], timeout=60)
            server.shutdown()
            thread.join()
        self.assertEqual(["/metrics"] * 3, asked, "twice busy, then done")
        self.assertEqual(0, done.returncode)
