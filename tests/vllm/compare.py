"""compare(case, theirs, ours): what a client could see differ between two answers to one request, as lines of text."""
import json, re

HEADERS = ("content-type", "access-control-allow-origin", "x-request-id", "endpoint-load-metrics", "allow", "location", "retry-after", "www-authenticate")
# Objects whose keys are data: tokens, ids, a tokenizer's configuration.
FREE_KEYS = re.compile(r"(top_logprobs\[\]|prompt_logprobs\[\]|^paths|^components|^metadata|^response\.metadata)$")
LOGPROB = 0.15  # two arithmetics: float32 there, BF16 activations here
ALIKE = 5       # tokens, or characters, that must agree before they may part


def shape(value, path="", out=None):
    """{"choices[].text: string", ...}: the keys and types of a JSON value at every depth; elements of a list are one."""
    out = set() if out is None else out
    if isinstance(value, dict):
        if path:
            out.add(f"{path}: object")
        free = FREE_KEYS.search(path)
        for k, v in value.items():
            shape(v, f"{path}.{'*' if free else k}" if path else k, out)
    elif isinstance(value, list):
        out.add(f"{path}: list")
        for v in value:
            shape(v, path + "[]", out)
    else:
        kind = "null" if value is None else "bool" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else "string"
        out.add(f"{path}: {kind}")
    return out


def shapes_differ(theirs, ours, where=""):
    a, b = shape(theirs), shape(ours)
    return [f"{where}lacks {x}" for x in sorted(a - b)] + [f"{where}adds {x}" for x in sorted(b - a)]


def parsed(body):
    try:
        return json.loads(body)
    except ValueError:
        return None


def words(message):
    """What an error says: of pydantic's list the first error's sentence and its field."""
    found = re.search(r"'msg': (['\"])(.*?)\1(?:,|\})", message)
    text = found.group(2) if found else message
    text = re.sub(r"^Value error, ", "", text)
    return set(re.findall(r"[a-z]{3,}|\d+", text.lower())) - {"the", "and", "that", "got", "this", "for"}


def errors_differ(theirs, ours):
    out = []
    a, b = theirs.get("error"), ours.get("error")
    if not isinstance(a, dict) or not isinstance(b, dict):
        return shapes_differ(theirs, ours)
    for key in ("type", "param", "code"):
        if a.get(key) != b.get(key):
            out.append(f"error.{key}: {a.get(key)!r} there, {b.get(key)!r} here")
    wanted, said = words(str(a.get("message"))), words(str(b.get("message")))
    if wanted and len(wanted & said) * 2 < min(len(wanted), len(said)):
        out.append(f"error.message: {str(a.get('message'))[:160]!r} there, {str(b.get('message'))[:160]!r} here")
    return out + [d for d in shapes_differ(theirs, ours) if "error." not in d]


def events(body):
    """[(event name or "", data)...] of a stream of server-sent events."""
    out = []
    for block in body.decode("utf-8").split("\n\n"):
        lines = block.split("\n")
        name = "".join(line[7:] for line in lines if line.startswith("event: "))
        data = "".join(line[6:] for line in lines if line.startswith("data: "))
        if data or name:
            out.append((name, data))
    return out


def kinds(stream):
    """The order of what comes: names or kinds of chunks, repeats as one."""
    out = []
    for name, data in stream:
        j = parsed(data)
        if data == "[DONE]":
            kind = "[DONE]"
        elif name:
            kind = name
        elif isinstance(j, dict) and "error" in j:
            kind = "error"
        elif isinstance(j, dict) and j.get("choices") == []:
            kind = "usage"
        elif isinstance(j, dict) and any((c.get("delta") or {}).get("role") for c in j.get("choices", [])):
            kind = "role"
        else:
            kind = "finish" if isinstance(j, dict) and any(c.get("finish_reason") for c in j.get("choices", [])) else "text"
        if not out or out[-1] != kind:
            out.append(kind)
    return out


def chunk_groups(stream):
    """{kind: merged shape} of a stream's chunks."""
    out, seen = {}, set()
    for name, data in stream:
        j = parsed(data)
        if not isinstance(j, dict):
            continue
        kind = kinds([(name, data)])[0]
        if kind == "text" and not seen:
            kind = "first"
        seen.add(kind)
        out.setdefault(kind, set()).update(shape(j))
    return out


def streams_differ(theirs, ours):
    a, b = events(theirs), events(ours)
    out = []
    short = lambda ks: [k for k in ks if k != "text"] if "role" in ks or "usage" in ks or "finish" in ks else ks
    ka, kb = short(kinds(a)), short(kinds(b))
    if sorted(set(ka)) != sorted(set(kb)) or (ka != kb and "finish" not in ka):
        out.append(f"order of events: {' '.join(ka)} there, {' '.join(kb)} here")
    ga, gb = chunk_groups(a), chunk_groups(b)
    for kind in ga:
        if kind in gb:
            out += [f"{kind} chunk lacks {x}" for x in sorted(ga[kind] - gb[kind])] + [f"{kind} chunk adds {x}" for x in sorted(gb[kind] - ga[kind])]
    return out


def choices_of(answer):
    """[{"text", "finish", "stop", "ids", "logprobs"}...] of any API's answer, streamed or not."""
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        parts = [parsed(d) for _, d in events(answer.body)]
        parts = [p for p in parts if isinstance(p, dict)]
    else:
        j = parsed(answer.body)
        parts = [j] if isinstance(j, dict) else []
    out = {}
    for p in parts:
        for c in p.get("choices") or []:
            o = out.setdefault(c.get("index"), {"text": "", "finish": None, "stop": None, "ids": [], "logprobs": []})
            message = c.get("message") or c.get("delta") or {}
            o["text"] += c.get("text") or message.get("content") or ""
            o["finish"], o["stop"] = c.get("finish_reason") or o["finish"], c.get("stop_reason") or o["stop"]
            o["ids"] += c.get("token_ids") or []
            l = c.get("logprobs") or {}
            o["logprobs"] += l.get("token_logprobs") or [x.get("logprob") for x in l.get("content") or []]
        whole = p.get("response") if p.get("type") == "response.completed" else p
        for item in (whole.get("output") or []) if isinstance(whole, dict) else []:
            o = out.setdefault("output", {"text": "", "finish": whole.get("status"), "stop": None, "ids": [], "logprobs": []})
            o["text"] += "".join(x.get("text", "") for x in item.get("content") or [])
        if p.get("type") == "message":
            out["message"] = {"text": "".join(x.get("text", "") for x in p.get("content") or []), "finish": p.get("stop_reason"), "stop": p.get("stop_sequence"), "ids": [], "logprobs": []}
        if p.get("type") == "content_block_delta":
            o = out.setdefault("message", {"text": "", "finish": None, "stop": None, "ids": [], "logprobs": []})
            o["text"] += p["delta"].get("text", "")
        if p.get("type") == "message_delta":
            o = out.setdefault("message", {"text": "", "finish": None, "stop": None, "ids": [], "logprobs": []})
            o["finish"], o["stop"] = p["delta"].get("stop_reason"), p["delta"].get("stop_sequence")
    return out


def usages_of(answer):
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        found = [parsed(d) for _, d in events(answer.body)]
        found = [p.get("usage") or (p.get("response") or {}).get("usage") for p in found if isinstance(p, dict)]
        found = [u for u in found if u]
        return found[-1] if found else None
    j = parsed(answer.body)
    return j.get("usage") if isinstance(j, dict) else None


def contents_differ(theirs, ours):
    out, a, b = [], choices_of(theirs), choices_of(ours)
    if set(a) != set(b):
        return [f"choices {sorted(map(str, a))} there, {sorted(map(str, b))} here"]
    same = True
    for i in a:
        x, y = a[i], b[i]
        if x["text"] != y["text"] or x["ids"] != y["ids"]:
            same = False
            agreed = next((n for n, (p, q) in enumerate(zip(x["text"], y["text"])) if p != q), min(len(x["text"]), len(y["text"])))
            ids = next((n for n, (p, q) in enumerate(zip(x["ids"], y["ids"])) if p != q), min(len(x["ids"]), len(y["ids"])))
            if agreed < min(3 * ALIKE, len(x["text"])) or (x["ids"] and ids < min(ALIKE, len(x["ids"]))):
                out.append(f"text of choice {i}: {x['text'][:80]!r} there, {y['text'][:80]!r} here")
        else:
            for key in ("finish", "stop"):
                if x[key] != y[key]:
                    out.append(f"{key} reason of choice {i}: {x[key]!r} there, {y[key]!r} here")
        if same and len(x["logprobs"]) != len(y["logprobs"]):
            out.append(f"{len(x['logprobs'])} logprobs there, {len(y['logprobs'])} here")
        for n, (p, q) in enumerate(zip(x["logprobs"], y["logprobs"])):
            if (p is None) != (q is None) or (p is not None and same and abs(p - q) > LOGPROB):
                out.append(f"logprob {n} of choice {i}: {p} there, {q} here")
    ua, ub = usages_of(theirs) or {}, usages_of(ours) or {}
    for key in ("prompt_tokens", "input_tokens") + (("completion_tokens", "output_tokens", "total_tokens") if same else ()):
        if ua.get(key) != ub.get(key):
            out.append(f"usage.{key}: {ua.get(key)} there, {ub.get(key)} here")
    return out


def vectors_differ(theirs, ours):
    a, b = ([row.get("embedding") or row["data"] for row in parsed(x.body)["data"]] for x in (theirs, ours))
    if [len(v) for v in a] != [len(v) for v in b]:
        return [f"lengths {[len(v) for v in a]} there, {[len(v) for v in b]} here"]
    dot = lambda u, v: sum(p * q for p, q in zip(u, v))
    out = []
    for u, v in zip(a, b):
        x, y = dot(u, u) ** 0.5, dot(v, v) ** 0.5
        out += [f"cosine {dot(u, v) / (x * y):.4f}"] * (dot(u, v) < 0.99 * x * y) + [f"length {x:.3f} there, {y:.3f} here"] * (abs(x - y) > 0.05 * x)
    return out + [f"usage {usages_of(x)}" for x in (ours,) if usages_of(ours) != usages_of(theirs)]


def families(text):
    """{name: (type, label names, buckets)} of the vllm: families of a /metrics page."""
    out = {}
    for line in text.decode().splitlines():
        if line.startswith("# TYPE vllm:"):
            _, _, name, kind = line.split()
            out[name] = (kind, set(), set())
        elif line.startswith("vllm:"):
            name, labels = re.match(r"([\w:]+)(\{.*\})?", line).groups()
            family = next((f for f in (name, re.sub(r"_(bucket|sum|count|total|created)$", "", name)) if f in out), None)
            if family is None:
                out.setdefault("without a type: " + name, ("", set(), set()))
                continue
            for key, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""):
                if key == "le":
                    out[family][2].add(float(value))
                else:
                    out[family][1].add(key)
    return out


def metrics_differ(theirs, ours):
    a, b = families(theirs.body), families(ours.body)
    out = [f"lacks {name}: {a[name][0]}" for name in sorted(a.keys() - b.keys())] + [f"adds {name}: {b[name][0]}" for name in sorted(b.keys() - a.keys())]
    for name in sorted(a.keys() & b.keys()):
        for what, x, y in zip(("type", "labels", "buckets"), a[name], b[name]):
            if x != y:
                brief = lambda v: " ".join(map(str, sorted(v))) if isinstance(v, set) else v
                out.append(f"{name}: {what} {brief(x)} there, {brief(y)} here")
    return out


def compare(case, theirs, ours):
    same = case[3].get("same", "shape")
    if theirs.status != ours.status:
        brief = lambda x: x.body[:200].decode(errors="replace").replace("\n", " ")
        return [f"status: {theirs.status} there ({brief(theirs)}), {ours.status} here ({brief(ours)})"]
    out = []
    for h in HEADERS:
        x, y = (re.sub(r"^http://127.0.0.1:\d+", "", a.headers[h]) if h in a.headers else None for a in (theirs, ours))
        if x != y and not (h == "x-request-id" and x and y):
            out.append(f"header {h}: {x!r} there, {y!r} here")
    if same == "status":
        return out
    if same == "metrics":
        return out + metrics_differ(theirs, ours)
    if theirs.headers.get("content-type", "").startswith("text/event-stream") and not out:
        return streams_differ(theirs.body, ours.body) + (contents_differ(theirs, ours) if same == "text" else [])
    a, b = parsed(theirs.body), parsed(ours.body)
    if a is None or b is None:
        if (a is None) != (b is None) or bool(theirs.body) != bool(ours.body):
            out.append(f"body: {theirs.body[:80]!r} there, {ours.body[:80]!r} here")
        return out
    if theirs.status >= 400 and isinstance(a, dict) and isinstance(b, dict):
        return out + errors_differ(a, b)
    out += shapes_differ(a, b)
    if same == "text":
        out += contents_differ(theirs, ours)
    elif same == "vector":
        out += vectors_differ(theirs, ours)
    elif same == "exact":
        forget = lambda v: {k: w for k, w in v.items() if k not in ("created", "id")} if isinstance(v, dict) else v
        for k in set(forget(a)) & set(forget(b)) if isinstance(a, dict) else ():
            if a[k] != b[k] and k not in ("choices",):
                out.append(f"{k}: {str(a[k])[:200]} there, {str(b[k])[:200]} here")
    elif same == "ids":
        rows = lambda v: [r["token_ids"] for r in (v if isinstance(v, list) else [v])]
        if rows(a) != rows(b):
            out.append(f"token_ids: {rows(a)} there, {rows(b)} here")
    return out
