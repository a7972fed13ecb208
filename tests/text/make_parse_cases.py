#!/usr/bin/env python3
"""Writes what vLLM's own parsers make of answers, for src/parse/parse_test.cc: in an environment where vLLM 0.32 can be imported,
with the package cohere-melody, which reads Cohere's answers there.

    make_parse_cases.py tests/cases/tools/vllm.json --rounds 8 --telling    # what is kept there
    make_parse_cases.py OUT.json [--seed N] [--rounds N]                    # more of them, for BATON_PARSE_CASES

Answers are put together from the pieces of each format: several calls, text before, between and behind them, nested braces, tags within strings,
escapes, empty arguments, cut off anywhere. Each goes through a parser whole, and as a stream in random chunks; both outcomes are written.
Not asked: what gpt-oss sends to tools of its own (python), which vLLM drops and we take for reasoning;
phi4_mini_json, functiongemma, whose parsers there lose calls with a list in them, and do not stream; thoughts of hunyuan_a13b, known there by
ids of its own tokenizer."""

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

TAGS = ["<|im_end|>", "<think>", "</think>", "Ġ</", "</", "think", "[THINK]", "[/THINK]", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>",
        "<|tool_call|>", "<tool_calls>", "</tool_calls>", "<function_call>", "<longcat_tool_call>", "</longcat_tool_call>", "<|action_start|>", "<|plugin|>", "<|action_end|>", "<seed:think>", "</seed:think>",
        "<seed:tool_call>", "</seed:tool_call>", "<minimax:tool_call>", "</minimax:tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
        "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
        "<assistant>", "<tool_sep>", "<dots_function_call>", "</dots_function_call>", "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>', "<|message_sep|>", "<|role_sep|>",
        "<|function_call|>", "<|tools_prefix|>", "<|tools_suffix|>", "<|open|>", "<|close|>", "<|sep|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_ACTION|>", "<|END_ACTION|>", "<|START_RESPONSE|>",
        "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>", "<|CHATBOT_TOKEN|>", "<mm:think>", "</mm:think>", "<｜tool_calls_begin｜>", "<｜tool_calls_end｜>", "<｜tool_call_begin｜>", "<｜tool_call_end｜>",
        "<｜tool_sep｜>", "<|plamo:begin_", "<|plamo:end_", ":plamo|>", "<|plamo:tag|>", "<ifm|think>", "</ifm|think>", "<ifm|tool_calls>", "</ifm|tool_calls>",
        "<｜DSML｜function_calls>", "</｜DSML｜function_calls>", "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", "<|python_start|>", "<|python_end|>", "<|tool_call_start|>", "<response>", "</response>"]
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


NAMES = ["f", "get_weather", "g"]


def bare(value):
    return value if isinstance(value, str) else json.dumps(value)


def xml(opening, closing, line="\n"):
    """Functions and parameters as elements; `line` stands around a value."""
    def make(r):
        out = text(r)
        for _ in range(r.choice([1, 2, 3])):
            body = "".join(f"<parameter={k}>{line}{bare(v)}{line}</parameter>\n" for k, v in arguments(r).items())
            call = f"<function={r.choice(NAMES)}>\n{body}</function>"
            out += call if r.random() < 0.1 else f"{opening}\n{call}\n{closing}" + r.choice(["", "\n", "", text(r)])
        return out
    return make


qwen_xml = xml("<tool_call>", "</tool_call>")


def minimax(r):
    calls = "".join(f'<invoke name="{r.choice(NAMES)}">\n' + "".join(f'<parameter name="{k}">{bare(v)}</parameter>\n' for k, v in arguments(r).items()) + "</invoke>\n" for _ in range(r.choice([1, 2, 3])))
    return text(r) + f"<minimax:tool_call>\n{calls}</minimax:tool_call>"


def dsml(section, space=""):
    mark = "｜DSML｜" + space

    def make(r):
        def parameter(k, v):
            return f'<{mark}parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">{bare(v)}</{mark}parameter>\n'
        calls = "".join(f'<{mark}invoke name="{r.choice(NAMES)}">\n' + "".join(parameter(k, v) for k, v in arguments(r).items()) + f"</{mark}invoke>\n" for _ in range(r.choice([1, 2, 3])))
        return text(r) + f"<{mark}{section}>\n{calls}</{mark}{section}>"
    return make


def glm(r):
    out = text(r)
    for _ in range(r.choice([1, 2, 3])):
        line = r.choice(["", "\n"])
        out += f"<tool_call>{r.choice(NAMES)}{line}" + "".join(f"<arg_key>{k}</arg_key>{line}<arg_value>{bare(v)}</arg_value>{line}" for k, v in arguments(r).items()) + "</tool_call>" + r.choice(["", "\n"])
    return out


def hunyuan(separator):
    """With white space where the parser there takes it, and no tag of a call in a value: it ends the call there."""
    def make(r):
        def call():
            line = r.choice(["", "\n"])
            between = line if separator else ""
            return f"<tool_call>{r.choice(NAMES)}{separator}{line}" + "".join(f"<arg_key>{k}</arg_key>{between}<arg_value>{bare(v)}</arg_value>{line}" for k, v in arguments(r).items() if "tool_call>" not in bare(v)) + f"</tool_call>{line}"
        return text(r) + r.choice(["<tool_calls>", "<tool_calls>\n"]) + "".join(call() for _ in range(r.choice([1, 2, 3]))) + "</tool_calls>"
    return make


def k2(r):
    def call():
        line = r.choice(["", "\n"])
        return f"<ifm|tool_call>{r.choice(NAMES)}{line}" + "".join(f"<ifm|arg_key>{k}</ifm|arg_key>{line}<ifm|arg_value>{bare(v)}</ifm|arg_value>{line}" for k, v in arguments(r).items()) + f"</ifm|tool_call>{line}"
    return text(r) + "<ifm|tool_calls>" + "".join(call() for _ in range(r.choice([1, 2, 3]))) + "</ifm|tool_calls>"


def declared(r, keys="asnbol"):
    """Arguments of these names, without what would be markup in XML."""
    return {k: v for k, v in arguments(r).items() if k in keys and not set("<&") & set(bare(v))}


def element_calls(opening, closing, head, parameter, end, keys):
    """Values in elements, and none in them."""
    def make(r):
        def call():
            return head.format(r.choice(NAMES)) + "".join(parameter.format(k, bare(v)) for k, v in declared(r, keys).items()) + end
        return text(r) + opening + "".join(call() for _ in range(r.choice([1, 2, 3]))) + closing
    return make


def dots(r):
    calls = "".join(f'<invoke name="{r.choice(NAMES)}">\n' + "".join(f'<parameter name="{k}">{bare(v)}</parameter>\n' for k, v in arguments(r).items() if bare(v) != "null") + "</invoke>\n" for _ in range(r.choice([1, 2, 3])))
    return text(r) + f"<dots_function_call>\n{calls}</dots_function_call>"


def gemma(r):
    def literal(v):
        if isinstance(v, str):
            return f'<|"|>{v}<|"|>'
        if isinstance(v, dict):
            return "{" + ",".join(f"{k}:{literal(w)}" for k, w in v.items()) + "}"
        return "[" + ",".join(map(literal, v)) + "]" if isinstance(v, list) else json.dumps(v)
    return text(r) + "".join(f"<|tool_call>call:{r.choice(NAMES)}{literal(arguments(r))}<tool_call|>" for _ in range(r.choice([1, 2, 3])))


def gigachat(r):
    return text(r) + r.choice(["<|message_sep|>function call<|role_sep|>\n", "<|function_call|>"]) + call_object(r)


def apertus(r):
    calls = ", ".join(f'{{"{r.choice(NAMES)}": {as_json(r, arguments(r))}}}' for _ in range(r.choice([1, 2, 3])))
    return text(r) + f"<|tools_prefix|>[{calls}]" + r.choice(["<|tools_suffix|>", "<|tools_suffix|>", ""])


def plamo(r):
    def tag(name):
        return f"<|plamo:{name}:plamo|>"
    calls = "".join(tag("begin_tool_request") + tag("begin_tool_name") + r.choice(NAMES) + tag("end_tool_name") + tag("begin_tool_arguments") + "<|plamo:constrain|>json<|plamo:msg|>"
                    + as_json(r, arguments(r)) + tag("end_tool_arguments") + tag("end_tool_request") for _ in range(r.choice([1, 2, 3])))
    return text(r) + tag("begin_tool_requests") + calls + tag("end_tool_requests")


def kimi_k3(r):
    def kind(v):
        return {str: "string", bool: "boolean", type(None): "null", dict: "object", list: "array"}.get(type(v), "number")

    def part(name, inside, attributes=""):
        return f"<|open|>{name}{attributes}<|sep|>{inside}<|close|>{name}<|sep|>"
    calls = "".join(part("call", "".join(part("argument", bare(v), f' key="{k}" type="{kind(v)}"') for k, v in arguments(r).items()), f' tool="{r.choice(NAMES)}" index="{i}"')
                    for i in range(1, r.choice([1, 2, 3]) + 1))
    out = r.choice([part("think", "hm <b>"), "hm {a}\n<|close|>think<|sep|>", part("think", "")]) + part("response", r.choice(["", "Hi.", "Zürich <b> "]))
    return out + r.choice([part("tools", calls), part("tools", calls), ""]) + r.choice(["", "<|close|>message<|sep|>"])


def cohere(texts):
    def make(r):
        def call(i):
            return f'{{"tool_call_id": "{i}", "tool_name": "{r.choice(NAMES)}", "parameters": {as_json(r, arguments(r))}}}'
        opening, closing = r.choice(texts)
        said = opening + r.choice(["Hi.", "a < b\nc", "Zürich 😀"]) + closing
        acts = "<|START_ACTION|>[\n    " + ",\n    ".join(call(i) for i in range(r.choice([1, 2, 3]))) + "\n]<|END_ACTION|>"
        return r.choice(["", "<|START_THINKING|>I see.\n<|END_THINKING|>"]) + r.choice([said, acts, acts])
    return make


def minimax_m3(r):
    mark = "]<]minimax[>["

    def element(name, v):
        inside = "".join(element(k, w) for k, w in v.items()) if isinstance(v, dict) else "".join(element("item", w) for w in v) if isinstance(v, list) else bare(v)
        return f"{mark}<{name}>{inside}{mark}</{name}>"
    calls = "".join(f'{mark}<invoke name="{r.choice(NAMES)}">' + "".join(element(k, v) for k, v in arguments(r).items()) + f"{mark}</invoke>\n" for _ in range(r.choice([1, 2, 3])))
    return text(r) + f"{mark}<tool_call>\n{calls}{mark}</tool_call>"


def kimi(r):
    calls = "".join(f"<|tool_call_begin|>functions.{r.choice(NAMES)}:{i}<|tool_call_argument_begin|>{as_json(r, arguments(r))}<|tool_call_end|>" for i in range(r.choice([1, 2, 3])))
    return text(r) + f"<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>"


def deepseek(fenced):
    def make(r):
        def call():
            name, body = r.choice(NAMES), as_json(r, arguments(r))
            return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{body}\n```<｜tool▁call▁end｜>" if fenced else f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{body}<｜tool▁call▁end｜>"
        return text(r) + "<｜tool▁calls▁begin｜>" + "\n".join(call() for _ in range(r.choice([1, 2, 3]))) + "<｜tool▁calls▁end｜>"
    return make


def objects(opening, closing, key="arguments", most=3):
    """One object a pair of tags."""
    def make(r):
        space = r.choice(["", "\n"])
        return text(r) + "".join(f"{opening}{space}{call_object(r, key)}{space}{closing}" for _ in range(r.randint(1, most)))
    return make


def listed(*wraps):
    """A list of objects between one of these pairs of tags."""
    def make(r):
        opening, closing = r.choice(wraps)
        return (text(r) if opening else "") + opening + "[" + ", ".join(call_object(r) for _ in range(r.choice([1, 2, 3]))) + "]" + closing
    return make


def wrapped_pythonic(opening, closing):
    return lambda r: opening + pythonic(r) + closing


def olmo(r):
    return "<function_calls>" + "\n".join(pythonic(r)[1:-1] for _ in range(r.choice([1, 1, 2]))) + "</function_calls>"


def thoughts(opening, closing):
    def make(r):
        return r.choice([f"{opening}hm, {{a}}\n{closing}", f"{opening}\nOne.\n\n{closing}\n\n", f"{opening}{closing}", f"{opening}never ends <b"]) \
            + r.choice(["", "Hi.", "\n\nHi <there>."])
    return make


def begun_thoughts(closing, opening="", answer=("", "")):
    """The prompt may have opened them."""
    def make(r):
        return r.choice([opening, opening, ""]) + r.choice(["hm, {a}\n", "One.\n\nTwo <b>.", "a < b\n"]) + closing + r.choice(["", "\n\n"]) + r.choice(["", answer[0] + r.choice(["Hi.", "Hi <there>."]) + answer[1]])
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
    ("deepseek_v3", None, deepseek(True), ()), ("deepseek_v31", None, deepseek(False), ()), ("deepseek_v32", None, dsml("function_calls"), ()), ("deepseek_v4", None, dsml("tool_calls"), ()),
    ("glm45", None, glm, ()), ("glm47", None, glm, ()), ("granite", None, listed(("<|tool_call|>", ""), ("<tool_call>", "")), ()), ("kimi_k2", None, kimi, ()), ("minimax_m2", None, minimax, ()),
    ("granite4", None, objects("<tool_call>", "</tool_call>"), ()), ("ernie45", None, objects("<tool_call>", "</tool_call>"), ()), ("longcat", None, objects("<longcat_tool_call>", "</longcat_tool_call>"), ()),
    ("internlm", None, objects("<|action_start|><|plugin|>", "<|action_end|>", "parameters", 1), ()), ("granite-20b-fc", None, objects("<function_call>", ""), ()),
    ("jamba", None, listed(("<tool_calls>", "</tool_calls>")), ()), ("hunyuan_a13b", None, listed(("<tool_calls>", "</tool_calls>")), ()),
    ("xlam", None, listed(("", ""), ("[TOOL_CALLS]", ""), ("<tool_call>", "</tool_call>"), ("```json\n", "\n```"), ("```\n", "```"), ("<think>hm</think>", "")), ()),
    ("seed_oss", None, xml("<seed:tool_call>", "</seed:tool_call>"), ()), ("mimo", None, xml("<tool_call>", "</tool_call>", ""), ()), ("step3p5", None, qwen_xml, ()),
    ("llama4_pythonic", None, lambda r: r.choice([wrapped_pythonic("<|python_start|>", "<|python_end|>"), pythonic])(r), ()),
    ("lfm2", None, lambda r: text(r) + wrapped_pythonic("<|tool_call_start|>", "<|tool_call_end|>")(r) + text(r), ()), ("olmo3", None, olmo, ()),
    *((None, name, begun_thoughts("</think>", "<think>"), ()) for name in ("glm45", "glm47", "kimi_k2", "minimax_m2", "step3p5", "holo2")), (None, "step3", begun_thoughts("</think>"), ()),
    (None, "deepseek_v3", lambda r: text(r) + "Hi.", ()), (None, "deepseek_v4", thoughts("<think>", "</think>"), ()), (None, "mimo", thoughts("<think>", "</think>"), ()), (None, "nemotron_v3", thoughts("<think>", "</think>"), ()),
    (None, "seed_oss", thoughts("<seed:think>", "</seed:think>"), ()), (None, "ernie45", begun_thoughts("</think>", "", ("<response>\n", "\n</response>\n")), ()),
    (None, "granite", lambda r: r.choice(["Here is", "Here's"]) + " my thought process: hm." + r.choice(["Here is", "Here's"]) + " my response: Hi.", ()),
    ("deepseek_v41", None, dsml("calls", " "), ()), ("ling3", None, glm, ()), ("poolside_v1", None, glm, ()), ("hy_v3", None, hunyuan("<tool_sep>"), ()), ("hy_v4", None, hunyuan(""), ()),
    ("k2_horizon", None, k2, ()), ("dots", None, dots, ()), ("minicpm5", None, element_calls("", "", '<function name="{}">', '<param name="{}">{}</param>', "</function>", "asnbol"), ()),
    ("step3", None, element_calls("<｜tool_calls_begin｜>\n", "<｜tool_calls_end｜>", '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="{}">\n', '<steptml:parameter name="{}">{}</steptml:parameter>\n',
                                  "</steptml:invoke><｜tool_call_end｜>\n", "asnb"), ()),
    ("gemma4", None, gemma, ()), ("gigachat3", None, gigachat, ()), ("apertus", None, apertus, ()), ("plamo3", None, plamo, ()), ("minimax_m3", None, minimax_m3, ()), ("kimi_k3", "kimi_k3", kimi_k3, ()),
    ("cohere_command3", "cohere_command3", cohere([("<|START_RESPONSE|>", "<|END_RESPONSE|>")]), ()),
    ("cohere_command4", "cohere_command4", cohere([("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|START_TEXT|>", "<|END_TEXT|>")]), ()),
    *((None, name, thoughts("<think>", "</think>"), ()) for name in ("deepseek_v41", "poolside_v1", "hy_v3", "hy_v4", "granite_thinking_parser")), (None, "olmo3", begun_thoughts("</think>", "<think>"), ("<think>", "</think>")),
    *((None, name, begun_thoughts("</think>", "<think>"), ()) for name in ("ling3", "minimax_m2_append_think")),
    (None, "k2_horizon", begun_thoughts("</ifm|think>", "<ifm|think>"), ()), (None, "gemma4", thoughts("<|channel>thought\n", "<channel|>"), ()), (None, "minimax_m3", thoughts("<mm:think>", "</mm:think>"), ()), (None, "plamo3", thoughts("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"), ()),
]
# what a request's chat_template_kwargs say, where a parser there asks
TEMPLATE_KWARGS = {"hy_v3": {"reasoning_effort": "high"}, "poolside_v1": {"enable_thinking": True}}


def outcome(reasoning, content, calls):
    return {"reasoning": reasoning or None, "content": content or None, "calls": [[c[0], c[1]] for c in calls]}


def run(parser_class, t, answer, r, is_harmony, kwargs):
    request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "hi"}], tools=TOOLS, tool_choice="auto")
    ids = t.encode(answer, add_special_tokens=False) if not is_harmony else t.encode(answer, allowed_special="all")
    out = {}
    try:
        reasoning, content, calls = parser_class(run.tokenizer, TOOLS_PARSED, **kwargs).parse(answer, request, enable_auto_tools=True, model_output_token_ids=ids)
        out["whole"] = outcome(reasoning, content, [(c.name, c.arguments) for c in calls or ()])
    except Exception as e:
        out["whole_error"] = repr(e)[:200]
    try:
        parser = parser_class(run.tokenizer, TOOLS_PARSED, **kwargs)
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


def told(case):
    """Of an answer that is whole, the same calls whole and streamed."""
    def calls(outcome):
        return [(name, json.loads(arguments or "{}")) for name, arguments in outcome["calls"]]
    try:
        return not case["cut"] and not case["tagged"] and calls(case["whole"]) == calls(case["stream"])
    except (KeyError, ValueError):
        return False


def encodable(case):
    """Not so: half a character, where a parser there cut an escape in two."""
    try:
        return bool(json.dumps(case, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False


def main():
    args = argparse.ArgumentParser()
    args.add_argument("out", type=pathlib.Path)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--rounds", type=int, default=60)
    args.add_argument("--telling", action="store_true", help="only answers of which vLLM says the same whole and streamed")
    args = args.parse_args()
    global TOOLS_PARSED
    TOOLS_PARSED = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "hi"}], tools=TOOLS).tools
    cases = []
    for tool, reasoning, make, without in ROWS:
        is_harmony = tool == "openai"
        t = run.tokenizer = tokenizer(without)
        if is_harmony:
            from vllm.entrypoints.openai.parser.harmony_utils import get_encoding
            t = get_encoding()
        try:
            parser_class = ParserManager.get_parser(tool_parser_name=tool, reasoning_parser_name=reasoning, enable_auto_tools=True, model_name="m", is_harmony=is_harmony)
            kwargs = {"chat_template_kwargs": TEMPLATE_KWARGS[reasoning]} if reasoning in TEMPLATE_KWARGS else {}
            parser_class(run.tokenizer, TOOLS_PARSED, **kwargs)
        except Exception as e:
            print(f"{tool} {reasoning}: {e!r}")
            continue
        r = random.Random(f"{args.seed} {tool} {reasoning}")
        for _ in range(args.rounds):
            answer = make(r)
            cut = r.random() < 0.25 and len(answer) > 2
            if cut:
                answer = answer[: r.randrange(1, len(answer))]
            tagged = any(quote + tag in answer for quote in "\"'" for tag in ("<tool_call>", "</tool_call>", "[TOOL_CALLS]"))
            case = {"tool": tool, "reasoning": reasoning, "text": answer, "cut": cut, "tagged": tagged}
            case.update(run(parser_class, t, answer, r, is_harmony, kwargs))
            if not args.telling or told(case):
                cases.append(case)
    rows = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases if encodable(c))
    args.out.write_text('{"tools": %s,\n"cases": [\n%s\n]}\n' % (json.dumps(TOOLS), rows))
    print(f"{args.out}: {len(cases)} cases, {sum('whole_error' in c or 'stream_error' in c for c in cases)} of them failed in vLLM")


if __name__ == "__main__":
    main()
