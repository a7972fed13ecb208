"""One request through router, sidecar and two engines is one trace, each process' spans below those of the one that called it."""
import http.server, json, os, threading, unittest, unittest.mock

import harness
from harness import Stack, post, wait_for

TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Takes OTLP over HTTP and keeps the spans."""

    def __init__(self):
        self.spans, self.lock = [], threading.Lock()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args): pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with collector.lock:
                    for resource in body["resourceSpans"]:
                        service = next(a["value"]["stringValue"] for a in resource["resource"]["attributes"] if a["key"] == "service.name")
                        for scope in resource["scopeSpans"]:
                            collector.spans += [{**span, "service": service} for span in scope["spans"]]
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()

    def of(self, trace):
        with self.lock:
            return [span for span in self.spans if span["traceId"] == trace]


class Tracing(unittest.TestCase):
    def bin_dir(self):
        """The programs, with a sidecar that traces."""
        import tempfile
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="baton-bin-"))
        for name in ("baton-engine", "baton-router"):
            os.symlink(f"{harness.BIN}/{name}", f"{folder}/{name}")
        with open(f"{folder}/baton-sidecar", "w") as out:
            out.write(f'#!/bin/sh\nexec {harness.BIN}/baton-sidecar --tracing "$@"\n')
        os.chmod(f"{folder}/baton-sidecar", 0o755)
        return folder

    def test_one_request_is_one_tree(self):
        collector = self.enterContext(Collector())
        self.enterContext(unittest.mock.patch.dict(os.environ, {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_SAMPLER": "parentbased_always_on", "OTEL_BSP_SCHEDULE_DELAY": "50"}))
        stack = self.enterContext(Stack(args=["--bin-dir", self.bin_dir()], engine_args=[f"--otlp-traces-endpoint={collector.url}/v1/traces"]))
        status, headers, _ = post(stack.port, "/v1/completions", {"prompt": "The trace begins here. " * 40, "max_tokens": 4, "temperature": 0},
                                  headers={"traceparent": f"00-{TRACE}-{CLIENT}-01", "x-request-id": "traced-1"})
        self.assertEqual(status, 200)
        self.assertIn("prefill=", headers["x-baton-worker"])
        wanted = ["decode", "forward_request", "gateway.request", "llm_request", "llm_request", "prefill"]
        names = lambda: sorted(s["name"] for s in collector.of(TRACE) if s["name"] in wanted)
        wait_for(lambda: names() == wanted, 30, f"spans {wanted}, got {names()}")
        spans = collector.of(TRACE)
        one = lambda name: next(s for s in spans if s["name"] == name)
        self.assertEqual(one("gateway.request")["parentSpanId"], CLIENT)
        self.assertEqual(one("forward_request")["parentSpanId"], one("gateway.request")["spanId"])
        self.assertEqual(one("prefill")["parentSpanId"], one("forward_request")["spanId"])
        self.assertEqual(one("decode")["parentSpanId"], one("forward_request")["spanId"])
        engines = {s["parentSpanId"] for s in spans if s["name"] == "llm_request"}
        self.assertEqual(engines, {one("prefill")["spanId"], one("decode")["spanId"]})
        self.assertEqual({s["service"] for s in spans}, {"llm-d-epp", "llm-d-disagg-sidecar", "vllm"})
        for span in spans:
            self.assertLessEqual(int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"]), span["name"])


if __name__ == "__main__":
    unittest.main()
