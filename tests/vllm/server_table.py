"""Requests about the server itself, rows as in requests_table.py: every route of theirs with the method it has and with others, bodies that are none, content
types, development mode's routes, and embeddings for servers that were started with --runner pooling. More ways for `same`:
    metrics     names, types, labels and buckets of every vllm: family
    vector      embeddings, by their cosine
"""
import json

from requests_table import CHAT, DROP, IDS, LONG, MODEL, MSGS, RESP, TEXT, but

POSTED = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT, "/v1/responses": RESP, "/v1/messages": MSGS, "/v1/messages/count_tokens": but(MSGS, max_tokens=DROP),
          "/inference/v1/generate": IDS, "/v1/chat/completions/render": CHAT, "/v1/completions/render": TEXT, "/tokenize": {"prompt": "a"}, "/detokenize": {"tokens": [504]}}
READ = ("/health", "/ping", "/version", "/load", "/v1/models", "/tokenizer_info")


def answers():
    row = lambda name, path, same="shape", **more: ("server " + name, path, None, {"same": same, **more})
    return [
        row("health", "/health"), row("ping", "/ping"), row("ping post", "/ping", method="POST"), row("version", "/version"), row("load", "/load", "exact"), row("models", "/v1/models"),
        row("models with a query", "/v1/models?limit=1"), row("metrics", "/metrics", "metrics"), row("openapi", "/openapi.json", "status"), row("docs", "/docs", "status"), row("head health", "/health", method="HEAD"),
        row("options", "/v1/completions", method="OPTIONS"), row("root", "/"), row("unknown", "/nope"), row("unknown v1", "/v1/nope"), row("unknown posted", "/v1/nope", method="POST"), row("two slashes", "//health"),
        row("case", "/V1/models"), row("slash behind", "/v1/models/"), row("slash behind post", "/v1/completions/", method="POST"), row("escaped", "/v1/mod%65ls"), row("dots", "/v1/../health"),
        row("server info", "/server_info?config_format=json", "status"), row("is sleeping", "/is_sleeping", "exact"), row("reset prefix cache", "/reset_prefix_cache", method="POST"),
        row("reset prefix cache twice", "/reset_prefix_cache?reset_running_requests=true&reset_external=true", method="POST"), row("reset mm cache", "/reset_mm_cache", method="POST"),
        row("sleep level 3", "/sleep?level=3", method="POST"), row("sleep level text", "/sleep?level=x", method="POST"), row("sleep mode", "/sleep?mode=doze", method="POST"),
        row("wake up awake", "/wake_up", "exact", method="POST"), row("abort requests", "/abort_requests", method="POST"), row("pause", "/pause", "status", method="POST"), row("resume", "/resume", "status", method="POST"),
    ]


def methods():
    for path in POSTED:
        yield ("method GET " + path, path, None, {})
        yield ("method PUT " + path, path, POSTED[path], {"method": "PUT"})
    for path in READ:
        if path != "/ping":
            yield ("method POST " + path, path, {}, {})
    yield ("method DELETE /v1/models", "/v1/models", None, {"method": "DELETE"})
    yield ("method HEAD /v1/models", "/v1/models", None, {"method": "HEAD"})
    yield ("method HEAD /v1/completions", "/v1/completions", None, {"method": "HEAD"})
    # Of models that embed, judge and rank; this one writes.
    for path in ("/v1/embeddings", "/v2/embed", "/pooling", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/v1/audio/transcriptions"):
        yield ("route " + path, path, {"model": MODEL, "input": "a"}, {})
    yield ("route batch", "/v1/chat/completions/batch", {**CHAT, "messages": [CHAT["messages"]]}, {})
    yield ("route messages render", "/v1/messages/render", MSGS, {"same": "ids"})
    yield ("route responses render", "/v1/responses/render", RESP, {"same": "ids"})
    for name, body in (("chat", CHAT), ("completion", TEXT), ("nothing", {"a": 1})):
        yield ("route invocations " + name, "/invocations", body, {"same": "text"})


MALFORMED = {"empty": b"", "open": b"{", "word": b"hello", "cut": b'{"model": "smollm2", "prompt": "a', "null": b"null", "list": b"[]", "text": b'"a"', "number": b"5", "two": b"{}{}", "comma": b'{"a": 1,}',
             "single quotes": b"{'a': 1}", "no colon": b'{"a" 1}', "not utf8": b'{"a": "\xff\xfe"}', "control": b'{"a": "\x01"}', "comment": b'{} // x', "lone surrogate": b'{"model": "\\ud800"}', "blank": b"  \n"}


def malformed():
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/tokenize", "/inference/v1/generate"):
        for name, raw in MALFORMED.items():
            if path in ("/v1/completions", "/v1/chat/completions") or name in ("empty", "open", "null", "list", "text"):
                yield (f"body {name} {path}", path, None, {"raw": raw})
    whole = json.dumps(TEXT)
    odd = {"twice": whole[:-1] + ', "max_tokens": 1}', "nan": whole[:-1] + ', "top_p": NaN}', "infinity": whole[:-1] + ', "temperature": Infinity}', "huge number": whole[:-1] + ', "seed": 1e400}',
           "big integer": whole[:-1] + ', "seed": 123456789012345678901234567890}', "float length": whole.replace('"max_tokens": 12', '"max_tokens": 12.0'), "half length": whole.replace('"max_tokens": 12', '"max_tokens": 12.5'),
           "text length": whole.replace('"max_tokens": 12', '"max_tokens": "12"'), "bool length": whole.replace('"max_tokens": 12', '"max_tokens": true'), "spaces": "\n  " + whole + "  \r\n",
           "nested": whole[:-1] + ', "x": ' + "[" * 40 + "]" * 40 + "}", "escapes": whole.replace("France", "\\u0046rance")}
    for name, text in odd.items():
        yield ("body " + name, "/v1/completions", None, {"raw": text.encode(), "same": "text"})
    yield ("body bom", "/v1/completions", None, {"raw": b"\xef\xbb\xbf" + whole.encode()})
    yield ("body of a megabyte", "/v1/completions", but(TEXT, prompt="a b " * (1 << 18)), {})
    yield ("body of a megabyte tokenize", "/tokenize", {"prompt": LONG * 20}, {"same": "exact"})
    yield ("body of a megabyte of ids", "/v1/completions", but(TEXT, prompt=[504] * (1 << 17)), {})


def content_types():
    types = {"none": "", "text": "text/plain", "form": "application/x-www-form-urlencoded", "upper": "Application/JSON", "charset": "application/json; charset=utf-8", "odd": "application/vnd.api+json", "word": "json",
             "no space": "application/json;charset=utf-8", "two": "application/json, text/plain"}
    for name, value in types.items():
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/v1/messages"):
            yield (f"type {name} {path}", path, POSTED[path], {"headers": {"Content-Type": value}, "same": "shape"})
    yield ("type accept", "/v1/completions", TEXT, {"headers": {"Accept": "text/event-stream"}, "same": "text"})
    yield ("header long", "/v1/models", None, {"headers": {"X-Long": "a" * 20000}})
    yield ("header request id", "/v1/completions", TEXT, {"headers": {"X-Request-Id": "mine"}, "same": "text"})
    yield ("header origin", "/v1/models", None, {"headers": {"Origin": "http://a.example"}})
    yield ("header preflight", "/v1/completions", None, {"method": "OPTIONS", "headers": {"Origin": "http://a.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}})


def about_the_server():
    """For the servers that generate, in development mode."""
    return answers() + list(methods()) + list(malformed()) + list(content_types())


def embeddings():
    """For servers with --runner pooling."""
    base = {"model": MODEL, "input": "The capital of France is Paris."}
    row = lambda name, same="vector", path="/v1/embeddings", **changes: ("embeddings " + name, path, but(base, **changes), {"same": same})
    return [
        row("plain"), row("list", input=["One.", "Two three four."]), row("ids", input=[504, 3575, 282, 4649]), row("lists of ids", input=[[504, 3575], [282, 4649, 314]]), row("base64", "shape", encoding_format="base64"),
        row("float", encoding_format="float"), row("messages", input=DROP, messages=CHAT["messages"]), row("user", user="me"), row("no model", model=DROP), row("truncate", truncate_prompt_tokens=3), row("truncate -1", input=LONG, truncate_prompt_tokens=-1),
        row("unknown field", frobnicate=1), row("no special tokens", add_special_tokens=False), row("request id", request_id="abc"), row("not normalised", use_activation=False), row("embed dtype", "shape", embed_dtype="float16", encoding_format="base64"),
        row("no input", "shape", input=DROP), row("null input", "shape", input=None), row("empty", "shape", input=""), row("empty list", "shape", input=[]), row("empty in list", "shape", input=["a", ""]), row("number", "shape", input=5),
        row("unknown model", "shape", model="x"), row("format", "shape", encoding_format="hex"), row("dimensions", "shape", dimensions=64), row("dimensions 0", "shape", dimensions=0), row("too long", "shape", input=LONG), row("negative id", "shape", input=[-1]),
        row("id out", "shape", input=[999999]), row("stream", "shape", stream=True), row("truncate text", "shape", truncate_prompt_tokens="x"), row("truncate 0", "shape", truncate_prompt_tokens=0), row("truncate over", "shape", truncate_prompt_tokens=5000),
        row("generating is not here", "shape", path="/v1/completions"), row("chat is not here", "shape", path="/v1/chat/completions"), row("pooling", path="/pooling"), row("pooling task", "shape", path="/pooling", task="classify"), row("normalize", "shape", normalize=True), row("truncate left", truncate_prompt_tokens=3, truncation_side="left"), row("embed v2", "shape", path="/v2/embed"),
        ("embeddings models", "/v1/models", None, {}), ("embeddings metrics", "/metrics", None, {"same": "metrics"}), ("embeddings tokenize", "/tokenize", {"prompt": "a b"}, {"same": "exact"}),
    ]
