#!/usr/bin/env python3
"""Writes what vLLM's own parsers make of answers, for BATON_PARSE_CASES of src/parse/parse_test.cc: in an environment where vLLM 0.32 can be imported.

    make_parse_cases.py OUT.json [--seed N] [--rounds N]

Answers are put together from the pieces of each format: several calls, text before, between and behind them, nested braces, tags within strings,
escapes, empty arguments, cut off anywhere. Each goes through a parser whole, and as a stream in random chunks; both outcomes are written.
Not asked: what gpt-oss sends to tools of its own (python), which vLLM drops and we take for reasoning;
phi4_mini_json, functiongemma, whose parsers there lose calls with a list in them, and do not stream."""

import argparse
import json
import logging
import pathlib
import random

logging.disable(logging.CRITICAL)

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager

TAGS = ["<|im_end|>", "<think>", "</think>", "[THINK]", "[/THINK]", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"]
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {
    "a": {"type": "integer"}, "s": {"type": "string"}, "n": {"type": "number"}, "b": {"type": "boolean"}, "o": {"type": "object"},
    "l": {"type": "array", "items": {"type": "string"}}}}}} for name in ("f", "get_weather", "g")]


def tokenizer(without=()):
    """Every byte a token, and the tags."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.decoder = decoders.ByteLevel()
    t.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS if tag not in without])
    return PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|im_end|>")


VALUES = [1, -2.5, True, None, "x", "", "Köln 日本 😀", 'a "b" \\ /', "tab\tline\n", "<tool_call>{}</tool_call>", "</tool_call>", "}", "{", "]", "[TOOL_CALLS]", "a,b(c)", [], {},
          {"a": {"b": [1, {"c": "}"}]}}, ["x", ["y"]], "'", "it's", "</parameter>", "<think>", "null", "true", "5"]


def arguments(r):
    by_type = {"a": 7, "s": r.choice([v for v in VALUES if isinstance(v, str)]), "n": 0.5, "b": r.random() < 0.5, "o": r.choice([{}, {"a": {"b": [1, {"c": "}"}]}}]),
               "l": r.choice([[], ["x", "y"]])}
    keys = r.sample(list(by_type), r.randrange(0, 4))
    out = {k: by_type[k] for k in keys}
    if r.random() < 0.3:
        out[r.choice(["k", "é", "a b"])] = r.choice(VALUES)
    return out


def as_json(r, value):
    return json.dumps(value, ensure_ascii=r.random() < 0.3, indent=r.choice([None, None, None, 1]), separators=r.choice([None, (",", ":"), (", ", ": ")]))


def call_object(r, key="arguments"):
    members = [("name", json.dumps(r.choice(["f", "get_weather", "g"]))), (key, as_json(r, arguments(r)))]
    if r.random() < 0.1:
        members.reverse()
    colon = r.choice([": ", ":", " : "])
    return "{" + r.choice([", ", ",", ",\n"]).join(f'"{k}"{colon}{v}' for k, v in members) + "}"


def text(r):
    return r.choice(["", "", "", "Let me look.", "\n", "Sure <b>! ", "a < b\n\n", "{not a call} [x] ", "Zürich: "])


def hermes(r):
    out = text(r)
    for _ in range(r.choice([1, 1, 2, 3])):
        space = r.choice(["", "\n"])
        out += f"<tool_call>{space}{call_object(r)}{space}</tool_call>" + r.choice(["", "\n", "", text(r)])
    return out


def llama(r):
    return r.choice(["", "", "<|python_tag|>", " "]) + r.choice(["; ", ";"]).join(call_object(r, r.choice(["parameters", "arguments"])) for _ in range(r.choice([1, 1, 2, 3]))) \
        + r.choice(["", "", "", " Done."])


def mistral_list(r):
    return text(r) + "[TOOL_CALLS]" + r.choice(["", " "]) + "[" + ", ".join(call_object(r) for _ in range(r.choice([1, 2, 3]))) + "]" + r.choice(["", "", "Done."])


def mistral_named(r):
    out = text(r)
    for _ in range(r.choice([1, 2, 3])):
        out += "[TOOL_CALLS]" + r.choice(["f", "get_weather", "g"]) + r.choice(["", "[ARGS]"]) + as_json(r, arguments(r))
    return out


def pythonic(r):
    def literal(v):
        return repr(v) if r.random() < 0.7 else repr(v).replace("'", '"') if isinstance(v, str) and '"' not in v and "'" not in v else repr(v)
    calls = [r.choice(["f", "get_weather"]) + "(" + ", ".join(f"{k}={literal(v)}" for k, v in arguments(r).items() if k.isidentifier()) + ")" for _ in range(r.choice([1, 2, 3]))]
    return "[" + ", ".join(calls) + "]"


def qwen_xml(r):
    out = text(r)
    for _ in range(r.choice([1, 2, 3])):
        body = ""
        for k, v in arguments(r).items():
            bare = v if isinstance(v, str) else json.dumps(v)
            body += f"<parameter={k}>\n{bare}\n</parameter>\n"
        call = f"<function={r.choice(['f', 'get_weather', 'g'])}>\n{body}</function>"
        out += call if r.random() < 0.1 else f"<tool_call>\n{call}\n</tool_call>" + r.choice(["", "\n", "", text(r)])
    return out


def thoughts(opening, closing):
    def make(r):
        return r.choice([f"{opening}hm, {{a}}\n{closing}", f"{opening}\nOne.\n\n{closing}\n\n", f"{opening}{closing}", f"{opening}never ends <b"]) \
            + r.choice(["", "Hi.", "\n\nHi <there>."])
    return make


def harmony(r):
    def head():
        return r.choice(["<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>", "<|channel|>final <|constrain|>json<|message|>"])

    def call():
        name = r.choice(["functions.f", "functions.get_weather", "g"])
        return r.choice([f"<|channel|>commentary to={name} <|constrain|>json<|message|>", f" to={name}<|channel|>commentary json<|message|>",
                         f"<|channel|>analysis to={name} code<|message|>", f"<|channel|>commentary to={name}<|message|>"]) + as_json(r, arguments(r))
    parts = [head() + r.choice(["Let me see.", "Zürich 😀\n", "a < b |> c", "x"]) if r.random() < 0.6 else call() for _ in range(r.choice([1, 2, 2, 3, 4]))]
    ends = ["<|end|>" if "to=" not in p else r.choice(["<|call|>", "<|end|>"]) for p in parts]
    out = "<|start|>assistant".join(p + e for p, e in zip(parts, ends))
    return out if r.random() < 0.5 else out[: out.rindex("<|")]


# --tool-call-parser, --reasoning-parser, answers, tags that the tokenizer lacks
ROWS = [
    ("hermes", None, hermes, ()), ("qwen3_json", None, hermes, ()), ("llama3_json", None, llama, ()), ("mistral", None, mistral_list, ("[ARGS]", "[THINK]", "[/THINK]")),
    ("mistral", None, mistral_named, ()), ("pythonic", None, pythonic, ()), ("qwen3_coder", None, qwen_xml, ()),
    (None, "deepseek_r1", thoughts("<think>", "</think>"), ()), (None, "qwen3", thoughts("<think>", "</think>"), ()), (None, "mistral", thoughts("[THINK]", "[/THINK]"), ()),
    ("hermes", "qwen3", lambda r: r.choice(["<think>hm</think>", "<think>hm"]) + hermes(r), ()),
    ("openai", "openai_gptoss", harmony, ()),
]


def outcome(reasoning, content, calls):
    return {"reasoning": reasoning or None, "content": content or None, "calls": [[c[0], c[1]] for c in calls]}


def run(parser_class, t, answer, r, is_harmony):
    request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "hi"}], tools=TOOLS, tool_choice="auto")
    ids = t.encode(answer, add_special_tokens=False) if not is_harmony else t.encode(answer, allowed_special="all")
    out = {}
    try:
        reasoning, content, calls = parser_class(None if is_harmony == "none" else run.tokenizer, TOOLS_PARSED).parse(answer, request, enable_auto_tools=True, model_output_token_ids=ids)
        out["whole"] = outcome(reasoning, content, [(c.name, c.arguments) for c in calls or ()])
    except Exception as e:
        out["whole_error"] = repr(e)[:200]
    try:
        parser = parser_class(run.tokenizer, TOOLS_PARSED)
        reasoning, content, calls, at = "", "", {}, 0
        sent = ""
        while at < len(ids) or at == 0:
            n = r.choice([1, 1, 2, 3, 5, 9])
            part = ids[at:at + n]
            at += max(len(part), 1)
            now = t.decode(ids[:at])
            if now.endswith("\ufffd") and at < len(ids):
                now = now.rstrip("\ufffd")
            delta, sent = now[len(sent):], now
            d = parser.parse_delta(delta, part, request, prompt_token_ids=[0], finished=at >= len(ids))
            if d is None:
                continue
            reasoning += d.reasoning or ""
            content += d.content or ""
            for c in d.tool_calls or ():
                call = calls.setdefault(c.index, ["", ""])
                if c.function and c.function.name:
                    call[0] = c.function.name
                if c.function and c.function.arguments:
                    call[1] += c.function.arguments
        out["stream"] = outcome(reasoning, content, [calls[i] for i in sorted(calls)])
    except Exception as e:
        out["stream_error"] = repr(e)[:200]
    return out


def main():
    args = argparse.ArgumentParser()
    args.add_argument("out", type=pathlib.Path)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--rounds", type=int, default=60)
    args = args.parse_args()
    global TOOLS_PARSED
    TOOLS_PARSED = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "hi"}], tools=TOOLS).tools
    r = random.Random(args.seed)
    cases = []
    for tool, reasoning, make, without in ROWS:
        is_harmony = tool == "openai"
        t = run.tokenizer = tokenizer(without)
        if is_harmony:
            from vllm.entrypoints.openai.parser.harmony_utils import get_encoding
            t = get_encoding()
        try:
            parser_class = ParserManager.get_parser(tool_parser_name=tool, reasoning_parser_name=reasoning, enable_auto_tools=True, model_name="m", is_harmony=is_harmony)
            parser_class(run.tokenizer, TOOLS_PARSED)
        except Exception as e:
            print(f"{tool} {reasoning}: {e!r}")
            continue
        for _ in range(args.rounds):
            answer = make(r)
            cut = r.random() < 0.25 and len(answer) > 2
            if cut:
                answer = answer[: r.randrange(1, len(answer))]
            tagged = any(quote + tag in answer for quote in "\"'" for tag in ("<tool_call>", "</tool_call>", "[TOOL_CALLS]"))
            case = {"tool": tool, "reasoning": reasoning, "text": answer, "cut": cut, "tagged": tagged}
            case.update(run(parser_class, t, answer, r, is_harmony))
            cases.append(case)
    rows = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    args.out.write_text('{"tools": %s,\n"cases": [\n%s\n]}\n' % (json.dumps(TOOLS), rows))
    print(f"{args.out}: {len(cases)} cases, {sum('whole_error' in c or 'stream_error' in c for c in cases)} of them failed in vLLM")


if __name__ == "__main__":
    main()
