"""`baton deploy ratio` in a (fake) cluster: it scales by the load it sees, one step at a time, and what a worker that goes still holds is fetched."""
import contextlib, http.server, os, re, signal, subprocess, sys, threading, unittest

import harness
from fake_kube import DEPLOYMENTS, FakeKube
from harness import Stack, complete, get, post, total, wait_for
from prompts import prompts

PODS = ("", "v1", "pods")
AUTOSCALERS = ("autoscaling", "v2", "horizontalpodautoscalers")
COST = "controller.kubernetes.io/pod-deletion-cost"
PROMPT = prompts()[40]


class Server:
    """A model server's /metrics, whose counters the test turns."""

    def __init__(self):
        server = self
        self.numbers = {"request_success_total": 0, "prompt_tokens_total": 0, "generation_tokens_total": 0, "inter_token_latency_seconds_sum": 0,
                        "inter_token_latency_seconds_count": 0, "num_requests_waiting": 0, "num_requests_running": 0, "kv_cache_usage_perc": 0}

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_GET(self):
                body = "".join(f"vllm:{k} {v}\n" for k, v in server.tick().items()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # who asked may have ended
                    self.wfile.write(body)

        self.grows = {}
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def tick(self):
        """Every look finds so much more: a load by looks, not by the clock."""
        for k, v in self.grows.items():
            self.numbers[k] += v
        return dict(self.numbers)

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


class Controller:
    """The program; one look a second, no waiting between steps but for what the test does."""

    def __init__(self, kube, *args):
        self.lines, self.port = [], None
        self.process = subprocess.Popen([f"{harness.BIN}/baton", "deploy", "ratio", "--prefill", "pre", "--decode", "dec", "--prefill-cost", "0,1000,0", "--decode-cost",
                                         "10000,1000,0", "--interval", "1", "--window", "3", "--up-after", "0", "--down-after", "0", "--settle", "0", "--host", "127.0.0.1", "--port", "0",
                                         *args], env={**os.environ, "KUBECONFIG": kube.kubeconfig}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        wait_for(lambda: self.port or self.process.poll() is not None, 30, "baton deploy ratio to listen")

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if m := re.search(r"ratio controller.*\bport=(\d+)", line):
                self.port = int(m.group(1))

    def logged(self, *parts):
        return any(all(p in line for p in parts) for line in list(self.lines))

    def value(self, name, label=""):
        return total(self.port, name, label)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        self.reader.join(timeout=10)


class Ratio(unittest.TestCase):
    def setUp(self):
        self.kube = self.enterContext(FakeKube())
        self.servers, self.controllers = {}, []
        for role, replicas in (("pre", 2), ("dec", 2)):
            self.kube.put(DEPLOYMENTS, {"metadata": {"name": role}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": role}}}})

    def tearDown(self):
        for c in self.controllers:
            if c.process.poll() is None:
                c.stop()
        for s in self.servers.values():
            s.stop()
        if self._outcome.result.failures or self._outcome.result.errors:
            for i, c in enumerate(self.controllers):
                print(f"--- controller {i}\n" + "".join(c.lines[-25:]), file=sys.stderr)

    def controller(self, *args):
        self.controllers.append(Controller(self.kube, *args))
        return self.controllers[-1]

    def pod(self, name, port, ready=True, leaving=False):
        role = name.split("-")[0]
        meta = {"name": name, "labels": {"app": role}, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {})}
        old = self.kube.get(PODS, name)
        if old:
            meta["annotations"] = old["metadata"].get("annotations", {})
        self.kube.put(PODS, {"metadata": meta, "spec": {"containers": [{"name": "vllm", "ports": [{"name": "metrics", "containerPort": port}]}]},
                             "status": {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}})

    def serve(self, *names):
        for name in names:
            self.servers[name] = Server()
            self.pod(name, self.servers[name].port)

    def replicas(self, role):
        return self.kube.get(DEPLOYMENTS, role)["spec"]["replicas"]

    def cost(self, name):
        return self.kube.get(PODS, name)["metadata"].get("annotations", {}).get(COST)

    BOUNDS = ("--prefill-max", "4", "--decode-max", "4")

    def test_it_scales_by_the_load(self):
        self.serve("pre-0", "pre-1", "dec-0", "dec-1")
        # A hundred prompts of 1,000 tokens wait, of 1 ms each: far more than two workers do in 30 s. Answers are enough for one decode worker and
        # not for one with a fifth to spare. Loads that wait do not depend on how fast this machine looks.
        for role, what in (("pre", {"request_success_total": 0.01, "prompt_tokens_total": 10}), ("dec", {"request_success_total": 0.01, "generation_tokens_total": 6})):
            for i in (0, 1):
                self.servers[f"{role}-{i}"].grows = what
                self.servers[f"{role}-{i}"].numbers["num_requests_waiting"] = 50 if role == "pre" else 20
        c = self.controller(*self.BOUNDS)
        wait_for(lambda: self.replicas("pre") == 3, 30, "a third prefill worker")
        self.assertEqual(self.replicas("dec"), 2, "one step at a time")
        wait_for(lambda: c.logged("the last worker is still starting"), 20, "it to wait for the one that starts")
        self.assertEqual(self.replicas("pre"), 3)
        self.assertGreater(c.value("baton_ratio_wanted", 'role="prefill"'), 2)
        self.assertEqual(c.value("baton_ratio_steps_total", 'role="prefill"'), 1)
        # The load ends: decode goes down by one, the idlest first, and no further while that one drains.
        self.serve("pre-2")
        self.servers["dec-0"].numbers["num_requests_running"] = 2
        for s in self.servers.values():
            s.grows = {}
            s.numbers["num_requests_waiting"] = 0
        wait_for(lambda: self.replicas("dec") == 1 or self.replicas("pre") == 2, 30, "a worker to go")
        wait_for(lambda: self.replicas("dec") == 1, 30, "a decode worker to go")
        self.assertEqual((self.cost("dec-0"), self.cost("dec-1")), (None, "-1000"), "the idlest is named")
        self.assertGreaterEqual(min(self.replicas("pre"), self.replicas("dec")), 1)

    def test_it_waits_for_the_drain(self):
        self.serve("pre-0", "pre-1", "pre-2", "dec-0", "dec-1")
        self.kube.put(DEPLOYMENTS, {**self.kube.get(DEPLOYMENTS, "pre"), "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "pre"}}}})
        c = self.controller(*self.BOUNDS, "--decode-min", "2")
        wait_for(lambda: self.replicas("pre") == 2, 30, "an idle prefill worker to go")
        gone = next(n for n in ("pre-0", "pre-1", "pre-2") if self.cost(n))
        self.pod(gone, self.servers[gone].port, ready=False, leaving=True)
        wait_for(lambda: c.logged("still draining"), 30, "it to wait")
        self.assertEqual(self.replicas("pre"), 2)
        self.kube.erase(PODS, gone)
        wait_for(lambda: self.replicas("pre") == 1, 30, "the next one to go")
        looks = self.kube.count("get deployments/scale")
        wait_for(lambda: self.kube.count("get deployments/scale") > looks + 6, 30, "some more looks")
        self.assertEqual((self.replicas("pre"), self.replicas("dec")), (1, 2), "never below the least")

    def test_devices_held(self):
        self.serve("pre-0", "pre-1", "dec-0", "dec-1")
        for name in ("pre-0", "pre-1"):
            self.servers[name].grows = {"request_success_total": 0.01, "prompt_tokens_total": 10}
            self.servers[name].numbers["num_requests_waiting"] = 50
        self.controller(*self.BOUNDS, "--hold-devices", "4")
        wait_for(lambda: self.replicas("pre") == 3, 30, "a decode worker to become a prefill worker")
        self.assertEqual(self.replicas("dec"), 1)
        puts = [entry[3] for entry in self.kube.log if entry[0] == "update" and entry[1] == DEPLOYMENTS]
        self.assertEqual(puts, ["dec", "pre"], "down before up: the device must be free")

    def test_dry_run_and_missing_numbers(self):
        self.serve("pre-0", "pre-1", "dec-0", "dec-1")
        c = self.controller(*self.BOUNDS, "--dry-run")
        wait_for(lambda: c.logged("ratio would change", 'to=1'), 30, "it to say what it would do")
        self.assertEqual(self.kube.count("update deployments/scale") + self.kube.count("patch pods"), 0)
        self.servers.pop("pre-1").stop()
        wait_for(lambda: c.logged("numbers are missing", "pre-1"), 30, "it to name the pod")
        wait_for(lambda: c.value("baton_ratio_wanted", 'role="prefill"') == -1, 30, "it to say that it does not know")
        self.assertEqual(get(c.port, "/healthz")[0], 200)

    def test_what_stops_it_is_explained(self):
        self.serve("pre-0", "pre-1", "dec-0", "dec-1")
        self.kube.fault("get deployments/scale", status=403, times=2)
        c = self.controller(*self.BOUNDS)
        wait_for(lambda: c.logged("kubectl -n default create role", "--resource=deployments.apps/scale", "--verb=get,update"), 20, "the command that would allow it")
        self.kube.put(AUTOSCALERS, {"metadata": {"name": "keda-hpa"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "dec"}}})
        wait_for(lambda: c.logged("HorizontalPodAutoscaler keda-hpa scales dec too"), 30, "the other autoscaler to be named")
        before, looks = (self.replicas("pre"), self.replicas("dec")), self.kube.count("get deployments/scale")
        wait_for(lambda: self.kube.count("get deployments/scale") > looks + 6, 30, "some more looks")
        self.assertEqual((self.replicas("pre"), self.replicas("dec")), before, "it does not fight")
        self.assertEqual(get(c.port, "/readyz")[0], 503)
        self.kube.kill()
        wait_for(lambda: c.value("baton_ratio_failures_total") > 5, 40, "looks to fail")
        self.kube.erase(AUTOSCALERS, "keda-hpa")
        self.kube.restart()
        wait_for(lambda: self.replicas("pre") == 1 and c.logged("sees again"), 60, "it to go on")

    def test_one_of_two_acts(self):
        self.serve("pre-0", "pre-1", "dec-0", "dec-1")
        first = self.controller(*self.BOUNDS, "--prefill-min", "2", "--decode-min", "2")
        wait_for(lambda: first.value("baton_ratio_leading") == 1, 30, "the first to lead")
        second = self.controller(*self.BOUNDS)
        self.assertEqual(second.value("baton_ratio_leading"), 0)
        self.assertEqual(get(second.port, "/readyz")[0], 200, "a standby is ready")
        first.stop()
        wait_for(lambda: second.value("baton_ratio_leading") == 1, 30, "the standby to lead")
        wait_for(lambda: self.replicas("pre") == 1, 30, "the standby to act")

    def test_leased_kv_outlives_the_scale_down(self):
        """Real engines: the worker that goes holds KV that nobody fetched yet. It is fetched while the worker drains, nothing is computed twice."""
        with Stack(prefill=2, decode=1) as s:
            decode = s.engine_port("decode-0")
            ports = {"pre-0": s.engine_port("prefill-0"), "pre-1": s.engine_port("prefill-1"), "dec-0": decode}
            names = {"pre-0": "prefill-0", "pre-1": "prefill-1"}
            for name, port in ports.items():
                self.pod(name, port)
            self.kube.put(DEPLOYMENTS, {**self.kube.get(DEPLOYMENTS, "dec"), "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "dec"}}}})
            legs = {}
            for name in names:
                status, _, body = post(ports[name], "/v1/completions", {"prompt": PROMPT + name, "max_tokens": 1, "temperature": 0, "kv_transfer_params": {
                    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None, "remote_host": None, "remote_port": None}})
                self.assertEqual(status, 200, body)
                legs[name] = body["kv_transfer_params"]
            c = self.controller("--prefill-max", "2", "--decode-max", "1")
            wait_for(lambda: self.replicas("pre") == 1, 30, "an idle prefill worker to go")
            gone = next(n for n in names if self.cost(n))
            pid = s.children()[names[gone]][0]
            # What Kubernetes does now: the pod is marked, the hook waits (here: not), SIGTERM.
            self.pod(gone, ports[gone], ready=False, leaving=True)
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: c.logged("still draining") or c.logged("as the load wants it"), 30, "the controller to see it")
            text = complete(decode, PROMPT + gone, 16, kv_transfer_params=legs[gone])
            self.assertEqual(total(decode, "kv_fallback_total"), 0, "the KV came from the worker that goes")
            self.assertGreater(total(decode, "vllm:external_prefix_cache_hits_total"), 0)
            self.assertEqual(text, complete(decode, PROMPT + gone, 16))
            other = next(n for n in names if n != gone)
            complete(decode, PROMPT + other, 16, kv_transfer_params=legs[other])  # nothing is left that the end would wait for
            # Its last grant is fetched, so it ends (baton up starts another in its place).
            wait_for(lambda: s.children().get(names[gone], (pid,))[0] != pid, 40, "the worker to end")


if __name__ == "__main__":
    unittest.main()
