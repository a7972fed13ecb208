"""A real Envoy, configured as the gateways of our users are, asks baton-router over ext_proc (TLS); sidecar and engines behind."""
import concurrent.futures, http.client, json, os, random, socket, threading, time, unittest

import harness
from envoy_proxy import Backend, Envoy, Router, Sidecar, endpoint
from harness import Stack, metrics, request, wait_for

# As the P/D guide's chart ships it (values of inferencepool v0.5.1 to v1.2.0).
PD_CONFIG = """apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefill-header-handler
- type: prefill-filter
- type: decode-filter
- type: prefix-cache-scorer
  parameters: {hashBlockSize: 5, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}
- type: max-score-picker
- type: pd-profile-handler
  parameters: {threshold: 0, hashBlockSize: 5}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: max-score-picker}, {pluginRef: prefix-cache-scorer, weight: 50}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: max-score-picker}, {pluginRef: prefix-cache-scorer, weight: 50}]
"""
REQUESTS = int(os.environ.get("BATON_ENVOY_REQUESTS", "5000"))


def checksum(data):
    h = 2166136261
    for c in data:
        h = ((h ^ c) * 16777619) & 0xFFFFFFFF
    return h


def ready(router, endpoints):
    wait_for(lambda: metrics(router.metrics_port)["llm_d_epp_ready_endpoints"] and
             sum(metrics(router.metrics_port)["llm_d_epp_ready_endpoints"].values()) >= endpoints, 20, f"{endpoints} ready endpoints")


def chat(port, body, headers=None, connection=None):
    c = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **(headers or {})})
    r = c.getresponse()
    return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()


def body_of(size, stream=False, seed=0):
    head = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"{seed} "}], "max_tokens": 8, "stream": stream}, separators=(",", ":"))
    return head.replace(f'"{seed} "', '"' + (f"{seed} " + "word " * (max(0, size - len(head)) // 5)) + '"').encode()


class Simulated(unittest.TestCase):
    """Engines that cost nothing, so that thousands of requests take seconds."""

    @classmethod
    def setUpClass(cls):
        cls.stack = []
        enter = lambda thing: cls.stack.append(thing) or thing.__enter__()
        try:
            cls.decode, cls.prefill = enter(Backend(harness.BIN, "--tick-us", "500")), enter(Backend(harness.BIN))
            cls.sidecar = enter(Sidecar(harness.BIN, cls.decode.port))
            cls.pool = [endpoint("decode-0", cls.sidecar.port, "decode"), endpoint("prefill-0", cls.prefill.port, "prefill")]
            # the chart's own flags of that release: camelCase, one dash
            cls.router = enter(Router(harness.BIN, cls.pool, ["-v", "2", "-poolName", "gaie-pd", "-enablePprof=true", "--zap-encoder", "json"], PD_CONFIG))
            cls.envoy = enter(Envoy(cls.router.port))
            ready(cls.router, 2)
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        while cls.stack:
            cls.stack.pop().__exit__(None, None, None)

    def test_many_sizes(self):
        """All answered; whole bodies, once, at the decode worker; the prefill worker named; ids kept."""
        rng = random.Random(7)
        plan = []
        for i in range(REQUESTS):
            size = rng.choice([1_000] * 20 + [5_000] * 8 + [40_000] * 4 + [450_000] + ([2_000_000] if i % 10 == 0 else [60_000]))
            plan.append((i, size, rng.random() < 0.2))

        def run(part):
            c = http.client.HTTPConnection("127.0.0.1", self.envoy.port, timeout=120)
            bad = []
            for i, size, stream in part:
                body = body_of(size, stream, i)
                status, headers, data = chat(None, body, {"x-request-id": f"id-{i}", "x-prefiller-host-port": "6.6.6.6:1"}, c)
                if stream:
                    good = status == 200 and data.count(b"data: ") == 100 and data.endswith(b"data: [DONE]\n\n")
                else:
                    answer = json.loads(data) if status == 200 else {}
                    # the sidecar adds its kv_transfer_params, so only the length tells here; test_verbatim has the checksum
                    good = answer.get("bytes", 0) >= len(body) and answer.get("port") == self.decode.port and answer.get("request_id") == f"id-{i}"
                if not good or headers.get("x-went-into-resp-headers") != "true":
                    bad.append((i, size, stream, status, data[:200]))
            c.close()
            return bad

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            bad = sum(pool.map(run, [plan[k::16] for k in range(16)]), [])
        self.assertEqual(bad, [], f"seed 7, {len(bad)} of {len(plan)}")
        handed = harness.total(self.router.metrics_port, "llm_d_epp_disagg_decision_total", 'decision_type="prefill-decode"')
        self.assertGreaterEqual(handed, len(plan))

    def test_verbatim(self):
        """Straight to an engine: the very bytes, and the prefiller's header as the picker says it, not as the client does."""
        with Router(harness.BIN, [endpoint("d", self.decode.port, "decode"), endpoint("p", self.prefill.port, "prefill")], [], PD_CONFIG) as router, \
                Envoy(router.port) as envoy:
            ready(router, 2)
            for size in (300, 61_999, 62_000, 62_001, 300_000, 1_100_000, 3_000_000):
                body = body_of(size)
                status, _, data = chat(envoy.port, body, {"x-prefiller-host-port": "6.6.6.6:1"})
                self.assertEqual(status, 200, data)
                answer = json.loads(data)
                self.assertEqual((answer["bytes"], answer["checksum"]), (len(body), checksum(body)), size)
                self.assertEqual(answer["prefill"], f"127.0.0.1:{self.prefill.port}")

    def test_models_without_body(self):
        status, headers, data = request(self.envoy.port, "GET", "/v1/models")
        self.assertEqual((status, json.loads(data)["data"][0]["id"]), (200, "m"))
        self.assertEqual(headers["x-went-into-resp-headers"], "true")

    def test_chunked_request(self):
        c = http.client.HTTPConnection("127.0.0.1", self.envoy.port, timeout=60)
        body = body_of(100_000)
        c.request("POST", "/v1/chat/completions", iter([body[:10], body[10:70_000], body[70_000:]]), {"Content-Type": "application/json"}, encode_chunked=True)
        r = c.getresponse()
        self.assertEqual((r.status, json.loads(r.read())["port"]), (200, self.decode.port))

    def test_bad_body(self):
        status, _, data = chat(self.envoy.port, b'{"model":')
        self.assertEqual(status, 400)
        self.assertTrue(data.startswith(b"inference error: BadRequest - "), data)

    def test_hundred_megabytes(self):
        """Straight to an engine: the sidecar's own limit is 64 MiB, and its refusal comes back as it is."""
        body = body_of(100_000_000)
        status, _, data = chat(self.envoy.port, body)
        self.assertEqual((status, json.loads(data)["error"]["code"]), (413, 413), data[:300])
        with Router(harness.BIN, [endpoint("d", self.decode.port, "decode")], [], PD_CONFIG) as router, Envoy(router.port) as envoy:
            ready(router, 1)
            status, _, data = chat(envoy.port, body)
            self.assertEqual((status, json.loads(data)["bytes"]), (200, len(body)), data[:300])

    def test_body_over_limit(self):
        with Router(harness.BIN, self.pool, ["--ext-proc-max-body-bytes", "1000000"], PD_CONFIG) as router, Envoy(router.port) as envoy:
            ready(router, 2)
            status, _, data = chat(envoy.port, body_of(3_000_000))
            self.assertEqual(status, 413, data)
            self.assertTrue(data.startswith(b"inference error: PayloadTooLarge - "), data)

    def test_unfinished_body(self):
        with Router(harness.BIN, self.pool, ["--ext-proc-body-timeout", "1s"], PD_CONFIG) as router, Envoy(router.port) as envoy:
            ready(router, 2)
            with socket.create_connection(("127.0.0.1", envoy.port), timeout=30) as s:
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
                self.assertIn(b" 408 ", s.recv(200))

    def test_no_pods(self):
        with Router(harness.BIN, [], [], PD_CONFIG) as router, Envoy(router.port) as envoy:
            status, headers, data = chat(envoy.port, body_of(300))
            self.assertIn(status, (429, 503))
            self.assertTrue(data.startswith(b"inference error: "), data)
            status, _, data = request(envoy.port, "GET", "/v1/models")
            self.assertEqual((status, data), (500, b"inference error: Internal - no pods available in datastore"))

    def test_router_killed(self):
        """Fail closed: an error at once. Fail open: Envoy goes on, without a destination. Both end when the router is back."""
        for fail_open, want in ((False, (500, 502, 503, 504)), (True, (503, 500))):
            with self.subTest(fail_open=fail_open), Router(harness.BIN, self.pool, [], PD_CONFIG) as router:
                with Envoy(router.port, fail_open=fail_open) as envoy:
                    ready(router, 2)
                    self.assertEqual(chat(envoy.port, body_of(300))[0], 200)
                    router.kill()
                    began = time.monotonic()
                    self.assertIn(chat(envoy.port, body_of(300))[0], want)
                    self.assertLess(time.monotonic() - began, 15)
                    with Router(harness.BIN, self.pool, ["--grpc-port", str(router.port)], PD_CONFIG) as again:
                        ready(again, 2)
                        wait_for(lambda: chat(envoy.port, body_of(300))[0] == 200, 20, "the router's return to be noticed")

    def steady(self, port, strike, before=60, after=120):
        """Four clients ask one after the other; `strike` is called in the middle. [(status, answered in full, began after the strike)]"""
        struck, seen, lock = [], [], threading.Lock()

        def client():
            while True:
                with lock:
                    if len(seen) >= before and not struck:
                        struck.append(time.monotonic())
                        strike()
                    if sum(late for _, _, late in seen) >= after:
                        return
                late = bool(struck)
                try:
                    status, _, data = chat(port, body_of(300))
                    whole = status == 200 and json.loads(data)["port"] == self.decode.port
                except (OSError, http.client.HTTPException, ValueError):
                    status, whole = 0, False
                with lock:
                    seen.append((status, whole, late))

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: client(), range(4)))
        return seen

    def test_one_picker_of_two_killed(self):
        """kill -9 of one of two pickers. Envoy asks a picker once: lost is what the dead one held, and what finds it dead until Envoy has set it aside; no more."""
        with Router(harness.BIN, self.pool, [], PD_CONFIG) as one, Router(harness.BIN, self.pool, [], PD_CONFIG) as other, Envoy([one.port, other.port]) as envoy:
            ready(one, 2), ready(other, 2)
            seen = self.steady(envoy.port, one.kill)
            self.assertLessEqual(sum(not whole for _, whole, _ in seen), 8, "one or two of each client")
            self.assertTrue(all(whole for _, whole, _ in seen[-80:]), "the other answers")
            self.assertGreater(harness.total(other.metrics_port, "llm_d_epp_request_total"), 100, "the other has them all")

    def test_one_gateway_of_two_killed(self):
        """The same of embedded gateways behind a proxy that retries: no request is lost, not even those that the dead one held."""
        gateway = lambda: Router(harness.BIN, self.pool, ["--http-port", "0"], PD_CONFIG)
        with gateway() as one, gateway() as other:
            listens = [int(g.find(r"gateway listens.*?\bport\"?[=:](\d+)")[1]) for g in (one, other)]
            ready(one, 2), ready(other, 2)
            with Envoy(one.port, direct=listens, retries=3) as envoy:
                seen = self.steady(envoy.port, one.kill)
            self.assertEqual([s for s, whole, _ in seen if not whole], [])

    def test_other_body_modes(self):
        for mode in ("BUFFERED", "STREAMED", "NONE", "BUFFERED_PARTIAL"):
            with self.subTest(mode=mode), Envoy(self.router.port, modes=mode, buffer=4 << 20) as envoy:
                for size in (300, 100_000):
                    status, _, data = chat(envoy.port, body_of(size))
                    self.assertEqual((status, json.loads(data)["port"]), (200, self.decode.port), data)
                status, _, data = chat(envoy.port, body_of(300, True))
                self.assertEqual((status, data.count(b"data: ")), (200, 100))

    def test_plaintext(self):
        with Router(harness.BIN, self.pool, ["--secure-serving=false"], PD_CONFIG) as router, Envoy(router.port, tls=False) as envoy:
            ready(router, 2)
            self.assertEqual(chat(envoy.port, body_of(300))[0], 200)

    def test_config_reload(self):
        """A new file is taken, a wrong one is not, and both are counted."""
        with Router(harness.BIN, self.pool, [], PD_CONFIG) as router:
            ready(router, 2)
            count = lambda name: harness.total(router.metrics_port, name)

            def write(text):
                with open(router.config_file + ".new", "w") as f:
                    f.write(text)
                os.rename(router.config_file + ".new", router.config_file)

            write("plugins: [{type: no-such-plugin}]")
            wait_for(lambda: count("baton_epp_config_refused_total") == 1, 10, "the wrong file to be refused")
            write(PD_CONFIG.replace("threshold: 0", "threshold: 100"))
            wait_for(lambda: count("baton_epp_config_reloads_total") == 1, 10, "the new file")


class RealEngines(unittest.TestCase):
    def test_prefill_and_decode(self):
        with Stack(prefill=1, decode=1) as s, Router(harness.BIN, list(s.endpoints.values()), [], PD_CONFIG) as router, Envoy(router.port) as envoy:
            ready(router, 2)
            body = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
            status, _, data = request(envoy.port, "POST", "/v1/completions", body)
            self.assertEqual(status, 200, data)
            direct = request(s.port, "POST", "/v1/completions", body)
            self.assertEqual(json.loads(data)["choices"][0]["text"], json.loads(direct[2])["choices"][0]["text"])
            handed = harness.total(router.metrics_port, "llm_d_epp_disagg_decision_total", 'decision_type="prefill-decode"')
            self.assertEqual(handed, 1)
            status, _, data = request(envoy.port, "POST", "/v1/completions", {**body, "stream": True})
            self.assertEqual((status, data.endswith(b"data: [DONE]\n\n")), (200, True))
