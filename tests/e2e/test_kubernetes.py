"""baton-router in a (fake) cluster: pods come and go, the API server dies and comes back, the leader is killed: requests go on."""
import http.server, json, os, re, signal, socket, subprocess, sys, threading, time, unittest

import harness
from fake_kube import FakeKube
from harness import get, post, wait_for

LABELS = {"app": "vllm", "llm-d.ai/role": "both"}
LEASE = ("coordination.k8s.io", "v1", "leases")


class Worker:
    """A model server that answers at once and says who it is. Every worker has the pool's one port, on an address of its own."""

    def __init__(self, address, port):
        worker = self
        self.address, self.served = address, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # as head and body are written apart
            def log_message(self, *args): pass
            def say(self, body, kind="application/json"):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def do_GET(self):
                if self.path == "/v1/models":
                    self.say(b'{"object":"list","data":[{"id":"m","object":"model"}]}')
                elif self.path == "/metrics":
                    self.say(b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0\n", "text/plain")
                else:
                    self.say(b"")
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                worker.served += 1
                self.say(json.dumps({"id": "x", "object": "text_completion", "model": "m", "choices": [
                    {"index": 0, "text": worker.address, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode())

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            def handle_error(self, request, address): pass

        self.server = Server((address, port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Router:
    def __init__(self, kube, *args):
        env = {**os.environ, "KUBECONFIG": kube.kubeconfig}
        env.pop("NAMESPACE", None)
        self.lines, self.ports = [], {}
        self.process = subprocess.Popen([f"{harness.BIN}/baton-router", "--pool-name", "pool", "--pool-namespace", "default", "--http-port", "0",
                                         "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0", "--drain-timeout", "1s", *args],
                                        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        wait_for(lambda: "http" in self.ports or self.process.poll() is not None, 30, "baton-router to listen")
        if "http" not in self.ports:
            raise RuntimeError("baton-router ended:\n" + "".join(self.lines))

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if m := re.search(r"gateway listens.*\bport\"?[=:](\d+)", line):
                self.ports["http"] = int(m.group(1))
            if m := re.search(r"endpoint picker listens.*\bmetrics\"?[=:](\d+)", line):
                self.ports["metrics"] = int(m.group(1))

    def logged(self, *parts):
        return any(all(p in line for p in parts) for line in list(self.lines))

    def ask(self):
        """Who served it."""
        status, _, body = post(self.ports["http"], "/v1/completions", {"model": "m", "prompt": "hello", "max_tokens": 1}, timeout=20)
        if status != 200:
            raise ValueError(f"{status} {body}")
        return body["choices"][0]["text"]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        self.reader.join(timeout=10)


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        usage = subprocess.run([f"{harness.BIN}/baton-router", "--help"], capture_output=True, text=True).stdout
        if "--pool-name" not in usage:
            raise unittest.SkipTest("this baton-router knows no Kubernetes")

    def setUp(self):
        self.kube = self.enterContext(FakeKube())
        self.workers = [Worker("127.0.1.1", 0)]
        for i in (2, 3):
            self.workers.append(Worker(f"127.0.1.{i}", self.workers[0].port))
        for w in self.workers:
            self.addCleanup(w.stop)
        self.kube.put_pool("pool", {"app": "vllm"}, [self.workers[0].port])
        self.routers = []

    def tearDown(self):
        for r in self.routers:
            if r.process.poll() is None:
                r.stop()
        failed = self._outcome.result.failures or self._outcome.result.errors
        if failed:
            for i, r in enumerate(self.routers):
                print(f"--- router {i}\n" + "".join(r.lines[-25:]), file=sys.stderr)

    def router(self, *args):
        self.routers.append(Router(self.kube, *args))
        return self.routers[-1]

    def pod(self, i, ready=True):
        self.kube.put_pod(f"pod-{i}", self.workers[i].address, LABELS, ready)

    def serves(self, router, wanted, timeout=20):
        """In the end requests reach exactly these workers: of 30 in a row each one, and no other; and from then on. (Changes that
        arrive together may be published one after the other, so a few that fit prove nothing.)"""
        wanted = {self.workers[i].address for i in wanted}
        wait_for(lambda: {router.ask() for _ in range(30)} == wanted, timeout, f"requests to reach {sorted(wanted)}")
        self.assertLessEqual({router.ask() for _ in range(30)}, wanted)

    def test_pods_come_and_go(self):
        self.pod(0)
        r = self.router()
        self.serves(r, [0])
        self.pod(1)
        self.pod(2, ready=False)
        self.serves(r, [0, 1])
        self.pod(2)
        self.pod(0, ready=False)
        self.serves(r, [1, 2])
        self.kube.erase(("", "v1", "pods"), "pod-1")
        self.serves(r, [2])
        # History lost (410), watches cut, lists failing: what changed meanwhile is learned, and nothing is lost on the way.
        self.kube.fault("list pods", status=503, times=1)
        self.kube.forget()
        self.kube.cut()
        self.pod(0)
        self.serves(r, [0, 2])
        self.assertEqual(len([n for n in range(20) if r.ask()]), 20)

    def test_api_server_killed(self):
        self.pod(0)
        self.pod(1)
        r = self.router()
        self.serves(r, [0, 1])
        self.kube.kill()
        wait_for(lambda: r.logged("keeping what is known"), 30, "the router to notice")
        self.serves(r, [0, 1])
        self.pod(2)
        self.kube.erase(("", "v1", "pods"), "pod-0")
        self.kube.restart()
        self.serves(r, [1, 2], timeout=60)
        self.assertTrue(r.logged("kubernetes answers again"))

    def test_api_server_slow(self):
        """A first list that takes its time: 503 until it is there. A watch that answers late: what is known goes on being served."""
        self.pod(0)
        self.kube.fault("list pods", delay=6.0)
        r = self.router()
        status, head, body = post(r.ports["http"], "/v1/completions", {"model": "m", "prompt": "hello", "max_tokens": 1})
        self.assertEqual((status, head.get("retry-after")), (503, "1"), body)
        self.serves(r, [0])
        self.kube.fault("watch pods", delay=2.0, times=3)
        self.kube.cut()
        self.pod(1)
        for _ in range(20):
            self.assertIn(r.ask(), (self.workers[0].address, self.workers[1].address))
        self.serves(r, [0, 1])

    def test_leader_killed(self):
        self.pod(0)
        holder = lambda: ((self.kube.get(LEASE, "epp-default-pool.llm-d.ai") or {}).get("spec") or {}).get("holderIdentity", "")
        first = self.router("--ha-enable-leader-election")
        wait_for(lambda: first.logged("leading") and holder(), 20, "the first replica to lead")
        leader = holder()
        second = self.router("--ha-enable-leader-election")
        self.serves(second, [0])  # a standby knows the pool
        self.assertFalse(second.logged(" leading lease="))
        began = time.monotonic()
        first.stop(signal.SIGKILL)
        wait_for(lambda: second.logged(" leading lease="), 40, "the standby to take over")
        self.assertNotEqual(holder(), leader)
        print(f"(took over {time.monotonic() - began:.1f} s after kill -9) ", end="", file=sys.stderr)
        self.serves(second, [0])
        third = self.router("--ha-enable-leader-election")
        began = time.monotonic()
        second.stop(signal.SIGTERM)  # gives the lease back: no waiting for its end
        wait_for(lambda: third.logged(" leading lease="), 12, "the lease to be handed over")
        self.serves(third, [0])

    def test_the_cluster_says_who_may_read_metrics(self):
        self.kube.tokens = {"reader": "system:serviceaccount:monitoring:prometheus", "stranger": "system:serviceaccount:default:app"}
        self.kube.allowed = {("system:serviceaccount:monitoring:prometheus", "get", "/metrics")}
        self.pod(0)
        router = self.router("--zap-encoder", "json")
        for port in (router.ports["metrics"], router.ports["http"]):
            read = lambda path, token=None: harness.request(port, "GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            status, _, text = read("/metrics", "reader")
            self.assertEqual(status, 200)
            self.assertIn(b"baton_discovery_age_seconds", text)
            self.assertIn(b"llm_d_epp_info", text)
            self.assertEqual(read("/metrics", "stranger")[0], 403)
            self.assertEqual(read("/metrics", "nobody")[0], 401)
            self.assertEqual(read("/metrics")[0], 401)
            self.assertEqual(read("/debug/plugins/state", "reader")[0], 403)
        self.assertEqual(harness.request(router.ports["metrics"], "GET", "/healthz")[0], 200)
        open_one = self.router("--metrics-endpoint-auth=false")
        self.assertEqual(harness.request(open_one.ports["metrics"], "GET", "/metrics")[0], 200)

    def test_denied_and_missing_are_explained(self):
        self.kube.fault("list pods", status=403, times=2)
        self.pod(0)
        r = self.router()
        self.serves(r, [0], timeout=60)
        self.assertTrue(r.logged("kubernetes denies access", "verb=list", "resource=pods", "namespace=default", "create role"))
        self.assertFalse(r.logged("no inference pool"))
        lonely = Router(self.kube, "--pool-name", "nosuch")
        self.routers.append(lonely)
        wait_for(lambda: lonely.logged("no inference pool", "nosuch", "inference.networking.k8s.io/v1="), 20, "the missing pool to be named")


class FakeItself(unittest.TestCase):
    """The fake keeps to the API's rules where the tests rely on them."""

    def test_semantics(self):
        with FakeKube() as kube:
            auth = {"Authorization": "Bearer fake-token"}
            base = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
            call = lambda method, path, body=None, **h: harness.request(kube.port, method, path, body, headers={**auth, **h})
            self.assertEqual(call("GET", base + "/l")[0], 404)
            self.assertEqual(call("POST", base, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})[0], 201)
            self.assertEqual(call("POST", base, {"metadata": {"name": "l"}})[0], 409)
            lease = json.loads(call("GET", base + "/l")[2])
            lease["spec"]["holderIdentity"] = "b"
            self.assertEqual(call("PUT", base + "/l", lease)[0], 200)
            self.assertEqual(call("PUT", base + "/l", lease)[0], 409, "an old resourceVersion")
            status, _, body = call("PATCH", base + "/l", {"spec": {"leaseTransitions": 1, "holderIdentity": None}}, **{"Content-Type": "application/merge-patch+json"})
            self.assertEqual((status, json.loads(body)["spec"]), (200, {"leaseTransitions": 1}))
            self.assertEqual(harness.request(kube.port, "GET", base)[0], 401)
            self.assertEqual(call("GET", "/apis/example.com/v1/namespaces/default/things")[0], 404)
            for i in range(5):
                kube.put_pod(f"p{i}", f"10.0.0.{i}", {"n": str(i % 2)})
            page = json.loads(call("GET", "/api/v1/namespaces/default/pods?limit=2&labelSelector=n%3D0")[2])
            self.assertEqual([p["metadata"]["name"] for p in page["items"]], ["p0", "p2"])


if __name__ == "__main__":
    unittest.main()
