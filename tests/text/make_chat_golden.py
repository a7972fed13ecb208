#!/usr/bin/env python3
"""Writes chat template cases for src/text/chat_template_test.cc: what Jinja2 renders, set up as Hugging Face transformers does.

    make_chat_golden.py                  tests/golden/chat_templates.json, from the fixtures below (committed)
    make_chat_golden.py --real OUT.json  the same for every template the PyPI package `trl` ships (Llama 3, Qwen, DeepSeek, ... as their
                                         authors wrote them), for BATON_CHAT_CASES; trl need not be importable, only installed

A case is {name, template, variables, expected} or, where the template fails, {.., error} with error the words of raise_exception or "".
The fixtures use the constructs of the real templates in words of our own."""

import argparse
import datetime
import importlib.util
import json
import pathlib

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Generation(Extension):
    """{% generation %}: marks the assistant's words for training; output is unchanged."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("same"), [], [], body).set_lineno(line)

    def same(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return env


def render(name, template, variables):
    case = {"name": name, "template": template, "variables": variables}
    try:
        case["expected"] = environment().from_string(template).render(**variables)
    except jinja2.exceptions.TemplateError as e:
        case["error"] = str(e) if type(e) is jinja2.exceptions.TemplateError else ""
    except Exception:
        case["error"] = ""
    return case


TOOL = {
    "type": "function",
    "function": {
        "name": "forecast",
        "description": 'Weather\nfor a "town" <b>\'s\'</b> Größe',
        "parameters": {
            "type": "object",
            "properties": {
                "town": {"type": "string", "description": "where"},
                "days": {"type": "integer", "default": 3, "minimum": 1e-7, "maximum": 1e16},
                "unit": {"type": "string", "enum": ["c", "f"]},
                "names": {"type": "array", "items": {"type": "string"}},
                "either": {"type": ["string", "null"]},
            },
            "required": ["town"],
        },
    },
}
CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "forecast", "arguments": {"town": "Köln", "days": 2, "x": 1.5, "none": None, "yes": True, "big": 12345678901234567890123}},
}
CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hi"}],
    "system": [
        {"role": "system", "content": "  Be brief. \n"},
        {"role": "user", "content": "Hello  "},
        {"role": "assistant", "content": "Hi!\n"},
        {"role": "user", "content": "😀 日本\n\nx"},
    ],
    "tools": [
        {"role": "user", "content": "w?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "forecast", "content": '{"t": 3}'},
        {"role": "assistant", "content": "cold"},
        {"role": "user", "content": "ok"},
    ],
    "thinking": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nanswer"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "a", "reasoning_content": "because"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": "two"}]}],
    "odd": [{"role": "assistant", "content": "first"}, {"role": "stranger", "content": "b"}],
    "empty": [],
}
SETTINGS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False, "tools": [TOOL]},
    {"add_generation_prompt": True, "tools": [TOOL, TOOL], "enable_thinking": False, "day": "1 Jan 2025", "tools_first": False},
    {"add_generation_prompt": True, "tools": None, "builtin": ["code", "search", "maths"], "reasoning_effort": "high"},
]

# Whole templates, built as the named families build theirs.
FAMILIES = {
    "smollm2": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a small model<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "llama3.1": """{{- bos_token }}
{%- if not tools_first is defined %}
    {%- set tools_first = true %}
{%- endif %}
{%- if not day is defined %}
    {%- set day = "26 July" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- the system message has its own place #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\\n\\n" }}
{%- if builtin is defined or tools is not none %}
    {{- "Runtime: py\\n" }}
{%- endif %}
{%- if builtin is defined %}
    {{- "Built in: " + builtin | reject('equalto', 'code') | join(", ") + "\\n\\n"}}
{%- endif %}
{{- "Day: " + day + "\\n\\n" }}
{%- if tools is not none and not tools_first %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system }}
{{- "<|eot|>" }}
{%- if tools_first and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("There is no first message to put the tools in") }}
    {%- endif %}
    {{- '<|start|>user<|end|>\\n\\nAnswer with JSON.\\n\\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first + "<|eot|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {%- if builtin is defined and call.name in builtin %}
            {{- "<|py|>" + call.name + ".call(" }}
            {%- for name, value in call.arguments | items %}
                {{- name + '="' + value + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '{"name": "' + call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start|>ipython<|end|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\\n\\n' }}
{%- endif %}
""",
    "qwen3": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "You may call:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n{\\"name\\": <name>}<|im_end|>\\n" }}
{%- else %}
    {%- if messages and messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(looking=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and message.role == "user" and message.content is string and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}
        {%- set ns.looking = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and reasoning)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if call.function %}
                    {%- set call = call.function %}
                {%- endif %}
                {{- '<call>\\n{"name": "' }}
                {{- call.name }}
                {{- '", "arguments": ' }}
                {%- if call.arguments is string %}
                    {{- call.arguments }}
                {%- else %}
                    {{- call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<r>\\n' + content + '\\n</r>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "mistral": """{%- if messages and messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{#- user and assistant take turns #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Turns must alternate: user/assistant/user/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS][" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function|tojson %}
            {{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}
                {{- raise_exception("A call id has length 9!") }}
            {%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user, assistant and tools speak here!") }}
    {%- endif %}
{%- endfor %}
""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, first_out=true, system='', first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.first_sp %}{% set ns.system = ns.system + message['content'] %}{% set ns.first_sp = false %}{%- else %}{% set ns.system = ns.system + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜><｜calls▁begin｜>' + tool['type'] + '<｜sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['function']['name']}}{%- endif %}{%- endfor %}{{'<｜calls▁end｜>'}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.is_tool %}{{'<｜outs▁end｜>' + message['content'] + eos_token}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + eos_token}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.first_out %}{{'<｜outs▁begin｜>' + message['content'] + '<｜out▁end｜>'}}{%- set ns.first_out = false %}{%- else %}{{'\\n' + message['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜outs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}""",
    "macros": """{%- macro type_of(spec, required, nullable=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- set inner = type_of(spec['items'], required) -%}
            {{- inner + "[]" if inner|length <= 50 else "any[]" }}
        {%- else -%}
            any[]
        {%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}
        {{- spec.type | join(" | ") }}
    {%- elif spec.type == "string" -%}
        {{- '"' + spec.enum|join('" | "') + '"' if spec.enum else "string" -}}
    {%- elif spec.type == "object" -%}
        {{- "{\\n" }}
        {%- for name, part in (spec.properties or {}).items() -%}
            {{- name ~ ("?" if name not in (spec.required or []) else "") ~ ": " }}
            {{ type_of(part, spec.required or [], nullable=true) }}
            {%- if part.default is defined %} // default: {{ part.default|tojson }}
            {%- endif %}
            {%- if not loop.last %}, {% endif -%}
        {%- endfor -%}
        {{- "}" }}
    {%- else -%}
        {{- spec.type | default("any") ~ ("" if not nullable else "?") }}
    {%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] %}
{%- set f = tool.function %}
// {{ f.description | replace("\\n", " ") | upper }}
type {{ f.name | title }} = (_: {{ type_of(f.parameters, []) }}) => any;
{% endfor %}
{%- for message in messages %}
    {%- if message.role not in ['user', 'assistant', 'system', 'tool'] %}{% continue %}{% endif %}
    {%- if message.content is string %}
<{{ message.role }}>{{ message.content | trim }}
    {%- elif message.content is not none %}
        {%- for part in message.content %}
            {%- if part.type == 'text' %}{{ part['text'] }}
            {%- else %}<{{ part.type }} {{ loop.index }}/{{ loop.length }}>
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {%- generation %}{{ "." }}{% endgeneration %}
{%- else %}
nothing
{%- endfor %}
{{ strftime_now("%%") }}""",
}

# One construct each, with the variables below.
VARIABLES = {
    "s": "Hello, Wörld", "sp": "  x \n", "n": 7, "f": 2.5, "z": 0, "yes": True, "none": None, "l": [3, 1, 2], "e": [], "ls": ["b", "A", "c"],
    "d": {"b": 1, "A": {"k": "v"}, "items": "shadow"}, "p": [{"name": "x", "age": 3}, {"name": "y", "age": 1}, {"name": "z"}],
    "esc": "a\"b'c\\d\ne\tf</script>\u0001\u007f\u2028é😀", "big": 123456789012345678901234567890, "tiny": 1e-7, "huge": 1e22,
}
SNIPPETS = r"""
{{ s }}|{{ n }}|{{ f }}|{{ yes }}|{{ none }}|{{ l }}|{{ d }}|{{ nothing }}|{{ e }}|{{ big }}|{{ tiny }}|{{ huge }}|{{ (1,) }}|{{ () }}|{{ (1, 'a') }}
{{ esc|tojson }}|{{ [esc] }}|{{ d|tojson }}|{{ d|tojson(indent=2) }}|{{ d|tojson(sort_keys=true) }}|{{ p|tojson(separators=(',', ':')) }}
{{ esc|tojson(ensure_ascii=true) }}|{{ [1.0, 1e16, 1e15, 123456.789, 0.0001, 0.00001, -0.0]|tojson }}|{{ [none, true, "x", []]|tojson }}|{{ {}|tojson(indent=1) }}
{{ 1 + 2 * 3 - 4 / 2 }}|{{ 7 // 2 }}|{{ -7 // 2 }}|{{ 7 % 3 }}|{{ -7 % 3 }}|{{ 7 % -3 }}|{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 7.5 // 2 }}|{{ -7.5 % 2 }}|{{ 1 / 3 }}|{{ 10 / 2 }}
{{ 'a' ~ 1 ~ none ~ 2.0 }}|{{ 'a' + 'b' * 3 }}|{{ [1] + [2] }}|{{ [0] * 3 }}|{{ 1 + true }}|{{ 1_000 }}|{{ 'a' 'b' }}
{{ 1 < 2 < 3 }}|{{ 3 > 2 >= 2 }}|{{ 1 == 1.0 }}|{{ 'a' < 'b' }}|{{ [1, 2] < [1, 3] }}|{{ true == 1 }}|{{ none == false }}|{{ (1, 2) == [1, 2] }}|{{ nothing == nada }}
{{ 'ell' in s }}|{{ 3 in l }}|{{ 'b' in d }}|{{ 'q' not in d }}|{{ not 1 in l }}|{{ 'x' in nothing }}|{{ not yes or n }}|{{ z or none or 'last' }}|{{ n and s }}|{{ e and 1 }}
{{ 'y' if yes else 'n' }}|{{ 'y' if z }}|{{ 'a' if z else 'b' if z else 'c' }}|{{ ('a' if n > 5) is defined }}
{{ s[0] }}|{{ s[-1] }}|{{ s[7:] }}|{{ s[::-1] }}|{{ s[1:5:2] }}|{{ s[:-3] }}|{{ s[100:] }}|{{ s[99] }}|{{ l[::-1] }}|{{ l[-2:] }}|{{ l[5:1:-1] }}|{{ l[-100:100] }}|{{ l[9] }}|{{ l[1:][0] }}
{{ d.b }}|{{ d['items'] }}|{{ d.A.k }}|{{ d.q }}|{{ d['q'] is undefined }}|{{ p[0].name }}|{{ p.0.name }}|{{ d.get('q') }}|{{ d.get('q', 5) }}|{{ d.get('b', 5) }}|{{ d.keys()|list }}|{{ d.values()|list }}|{{ d.items()|list }}
{{ nothing.x }}
{{ d.q.x }}
{{ nothing + 'a' }}
{{ 'a' + 1 }}
{{ 1 < 'a' }}
{{ none.x is defined }}|{{ none['x'] is defined }}|{{ n.x is defined }}
{{ 1 / 0 }}
{{ l.append(4) }}
{{ d.update({}) }}
{{ nosuch(1) }}
{{ n() }}
{{ range(3)|list }}|{{ range(1, 10, 3)|list }}|{{ range(3, 0, -1)|list }}|{{ range(0)|list }}
{{ s|upper }}|{{ s|lower }}|{{ 'hELLO wORLD-x (y'|title }}|{{ 'hELLO'|capitalize }}|{{ s|length }}|{{ l|count }}|{{ nothing|length }}|{{ d|length }}
{{ sp|trim }}|{{ 'xxaxx'|trim('x') }}|{{ s|replace('l', 'L') }}|{{ s|replace('l', 'L', 1) }}|{{ 'ab'|replace('', '-') }}|{{ 5|replace('5', '6') }}
{{ nothing|default('d') }}|{{ none|default('d') }}|{{ none|default('d', true) }}|{{ ''|d('e', boolean=true) }}|{{ nothing|d }}
{{ l|first }}|{{ l|last }}|{{ e|first }}|{{ s|first }}|{{ l|join }}|{{ l|join('-') }}|{{ p|join(',', attribute='name') }}|{{ l|reverse|list }}|{{ s|reverse }}|{{ l|sum }}|{{ p[:2]|sum(attribute='age') }}
{{ l|sort }}|{{ ls|sort }}|{{ ls|sort(case_sensitive=true) }}|{{ l|sort(reverse=true) }}|{{ p[:2]|sort(attribute='age')|map(attribute='name')|list }}|{{ ['a', 'A', 'b']|unique|list }}|{{ l|min }}|{{ l|max }}|{{ ls|max }}
{{ p|map(attribute='age', default=0)|list }}|{{ ls|map('upper')|list }}|{{ ls|map('replace', 'b', 'x')|list }}|{{ p|map(attribute='name')|join('+') }}
{{ l|select('odd')|list }}|{{ l|reject('equalto', 1)|list }}|{{ [0, 1, '']|select|list }}|{{ p|selectattr('age')|list|length }}|{{ p|selectattr('age', 'defined')|map(attribute='name')|list }}|{{ p|rejectattr('name', 'in', ['x', 'y'])|list }}|{{ p|selectattr('name', '==', 'y')|first }}
{{ d|dictsort }}|{{ d|dictsort(true) }}|{{ {'x': 2, 'y': 1}|dictsort(by='value') }}|{{ {'x': 2, 'y': 1}|dictsort(reverse=true) }}|{{ d|items|list }}|{{ nothing|items|list }}|{{ d|list }}|{{ s|list|length }}
{{ '42'|int }}|{{ ' 42 '|int }}|{{ 'x'|int }}|{{ 'x'|int(7) }}|{{ '3.9'|int }}|{{ 3.9|int }}|{{ '0x1f'|int(0, 10) }}|{{ 'ff'|int(0, 16) }}|{{ none|int }}|{{ '2.5'|float }}|{{ 'x'|float }}|{{ 3|float }}|{{ 3.14159|round(2) }}|{{ 2.5|round }}|{{ 2.1|round(0, 'ceil') }}|{{ -3|abs }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(1, blank=true) }}|{{ 'a\nb'|indent('>') }}|{{ l|batch(2)|list }}|{{ l|batch(2, 0)|list }}|{{ n|string + 'x' }}|{{ s|safe }}|{{ d|attr('b') is defined }}
{{ sp.strip() }}|{{ 'xxaxx'.lstrip('x') }}|{{ 'xxaxx'.rstrip('x') }}|{{ 'a,b,,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b '.split() }}|{{ ' a  b  c '.split(none, 1) }}|{{ 'a,b,c'.rsplit(',', 1) }}|{{ 'a\nb\r\nc'.splitlines() }}
{{ s.startswith('Hell') }}|{{ s.endswith(('x', 'ld')) }}|{{ s.replace('l', '', 2) }}|{{ s.upper() }}|{{ s.title() }}|{{ "they're x2y".title() }}|{{ s.find('W') }}|{{ s.find('?') }}|{{ s.count('l') }}|{{ '-'.join(ls) }}|{{ 'abc'.removeprefix('ab') }}|{{ 'abc'.removesuffix('bc') }}
{{ '12'.isdigit() }}|{{ 'ab1'.isalpha() }}|{{ 'ab1'.isalnum() }}|{{ ' '.isspace() }}|{{ 'AB'.isupper() }}|{{ 'ab'.islower() }}|{{ ''.isdigit() }}|{{ '{} {{}} {x}'.format(1, x='y') }}|{{ l.index(1) }}|{{ l.count(1) }}
{{ s is string }}|{{ n is number }}|{{ yes is number }}|{{ n is integer }}|{{ f is float }}|{{ d is mapping }}|{{ l is sequence }}|{{ d is sequence }}|{{ s is iterable }}|{{ n is iterable }}|{{ nothing is iterable }}|{{ none is none }}|{{ yes is boolean }}|{{ yes is true }}|{{ z is false }}|{{ range is callable }}
{{ n is odd }}|{{ n is even }}|{{ n is divisibleby 7 }}|{{ n is divisibleby(2) }}|{{ n is eq 7 }}|{{ n is gt(3) }}|{{ n is in [7] }}|{{ s is not string }}|{{ 'a' is lower }}|{{ 'A' is upper }}|{{ n is not defined }}|{{ none is sameas none }}|{{ x is defined and x }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem is defined }}{{ x }};{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for (a, b) in [(1, 2), [3, 4]] %}{{ a + b }};{% endfor %}{% for c in 'añ' %}{{ c }}.{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for x in nothing %}x{% else %}none{% endfor %}
{% for x in l if x > 1 %}{{ x }}/{{ loop.length }}{{ loop.last }};{% else %}none{% endfor %}{% for x in l if x > 9 %}{% else %}none{% endfor %}
{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}{% for a in l %}{% for b in l %}{{ loop.index }}{{ loop.depth }}{% endfor %}{{ loop.index }}{% endfor %}
{% set x = 1 %}{% for i in l %}{{ x }}{% set x = i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 'in' %}{% endif %}{{ x }}
{% set ns = namespace(a=1, b='x') %}{% for i in l %}{% set ns.a = ns.a + i %}{% set ns.c = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns.q is defined }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}{% set blk %}x{{ n }}{% endset %}{{ blk|length }}{% set up | upper | replace('B', '-') %}abc{% endset %}{{ up }}
{% set n.x = 1 %}
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(1, c=5) }}|{{ m(b=1, a=2) }}|{{ m() }}|{{ m('x')|upper }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(q=2) }}
{% macro down(k) %}{{ k }}{% if k > 0 %}{{ down(k - 1) }}{% endif %}{% endmacro %}{{ down(5) }}{% set late = 1 %}{% macro g() %}{{ late }}{% endmacro %}{% set late = 2 %}{{ g() }}
{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('b') %}in{{ n }}{% endcall %}{% macro each() %}{{ caller(1) }}{{ caller(2) }}{% endmacro %}{% call(x) each() %}[{{ x }}]{% endcall %}
{% filter upper %}a{{ s }}{% endfilter %}{% with a=1, b=n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}{% raw %}{{ not }}{% if %}{% endraw %}
{%- if yes -%}  a  {%- endif -%}  b  {{- ' c ' -}}  d
{% if z %}1{% elif n == 7 %}2{% else %}3{% endif %}{% if nothing %}x{% endif %}{% if e %}x{% elif l %}y{% endif %}
{{ {'a': 1, 'b': [1, {'c': none}], 3: 'x', 'a': 2} }}|{{ {'a': {'b': 1}}['a']['b'] }}|{{ {'}}': 1} }}|{{ "%}" }}|{{ '\x41\u00e9\U0001f600\\\'\q' }}
{{ raise_exception('own words: ' ~ n) }}
{{ dict(a=1, b=2) }}|{{ namespace(x=5).x }}|{{ (l|length) * '-' }}|{{ -n }}|{{ +n }}|{{ -n|abs }}|{{ 2 - -2 }}|{{ not not n }}|{{ ((n)) }}
{# a comment #}x{#- strip -#}  y {# {{ no }} #} z
{{ s|nosuchfilter }}
{{ s is nosuchtest }}
{% nosuchtag %}
{{ s
{% if s %}
{{ 'open }}
{% for %}{% endfor %}
{{ a b }}
{% endif %}
{{ l[::0] }}|
{{ [1, 2
{{ "tab\there" }}{{ 'a' if n is defined and n == 7 else 'b' }}{{ not n == 7 }}{{ n != 7 or n }}{{ (n == 7) == true }}
""".strip("\n").split("\n")
MULTILINE = {
    "trim and lstrip": "a\n  {% if yes %}\n    b\n  {% endif %}\n  c {% if yes %} d{% endif %}\n\n {{ n }}\n  {{ n }} \n{# c #}\n  {# c #}\ne\n\n",
    "minus": "a\n\n  {%- if yes %}\n\n  b\n\n  {%- endif -%}\n\n  c\n  {{- n }}\n  {{ n -}}\n  d",
    "plus": "a\n  {%+ if yes %}\n  b\n  {% endif +%}\nc\n  {#+ x #}\nd{# x +#}\ne",
    "line starts": "{% if yes %}\n  {% if yes %}\n  x\n  {% endif %}\n{% endif %}\n  {% if yes %}y{% endif %}  \n",
    "after variable": "{{ n }}  {% if yes %}x{% endif %}\n{{ n }}\n  {% if yes %}y{% endif %}",
    "crlf": "a\r\n{% if yes %}\r\nb\r{% endif %}\r\nc\r\n",
    "raw": "a\n  {% raw %}\n  {{ x }}\n  {% endraw %}\nb\n{%- raw -%}  y  {%- endraw -%}  z",
    "set block": "{% set x %}\n  a\n  b\n{% endset %}\n[{{ x }}]",
    "comment over lines": "a\n  {#- x\n y -#}\n  b\n  {# x\n y #}\n  c",
}


def fixtures():
    for family, template in FAMILIES.items():
        for conversation, messages in CONVERSATIONS.items():
            for i, settings in enumerate(SETTINGS):
                if (len(conversation) + i) % 2 and conversation in ("odd", "empty", "parts"):
                    continue  # these mostly fail: half are enough
                variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", **settings}
                yield f"{family} {conversation} {i}", template, variables
    for i, snippet in enumerate(SNIPPETS):
        yield f"snippet {i + 1}", snippet, VARIABLES
    for name, template in MULTILINE.items():
        yield name, template, {"yes": True, "n": 7}


# What only gpt-oss's template says: one call a message, thoughts under "thinking", an effort, instructions of a developer.
HARMONY_CALL = [
    {"role": "user", "content": "w?"},
    {"role": "assistant", "content": "", "thinking": "I look it up.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"t": 3, "é": "<b>"}'},
]
HARMONY_CONVERSATIONS = {
    "call": HARMONY_CALL,
    "two calls": [*HARMONY_CALL, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "other", "arguments": {}}}]},
                  {"role": "tool", "content": "ok"}],
    "answered": [*HARMONY_CALL, {"role": "assistant", "content": "cold", "thinking": "3 is cold"}, {"role": "user", "content": "thanks"}],
    "developer": [{"role": "developer", "content": "Be brief.\n"}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi.", "thinking": "short"}],
    "last": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi.", "thinking": "short"}],
    "result alone": [{"role": "tool", "content": "x"}],
    "tags": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<|channel|>final<|message|>x"}],
}
SHAPES_TOOL = {
    "type": "function",
    "function": {
        "name": "shapes",
        "description": "d",
        "parameters": {
            "type": "object",
            "properties": {
                "one": {"anyOf": [{"type": "string"}, {"type": "number", "default": 2}], "description": "either"},
                "other": {"oneOf": [{"type": "integer", "description": "i"}, {"type": "object", "properties": {"k": {"type": "boolean"}}}]},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string", "nullable": True}}, "required": ["a"]}},
                "mode": {"type": "string", "enum": ["x", "y"], "default": "x"},
                "free": {"type": "object"},
            },
            "required": ["one", "mode"],
        },
    },
}
HARMONY_SETTINGS = [
    *({"add_generation_prompt": True, "reasoning_effort": effort} for effort in ("low", "medium", "high")),
    {"add_generation_prompt": True, "tools": [TOOL, SHAPES_TOOL], "model_identity": "You are a test."},
    {"add_generation_prompt": False, "tools": [{"type": "function", "function": {"name": "bare", "description": "no parameters"}}]},
    {"add_generation_prompt": True, "builtin_tools": ["browser", "python"], "tools": [SHAPES_TOOL]},
]


def real():
    package = pathlib.Path(importlib.util.find_spec("trl").origin).parent
    for path in sorted((package / "chat_templates").glob("*.jinja")):
        template = path.read_bytes().decode()
        for conversation, messages in CONVERSATIONS.items():
            for i, settings in enumerate(SETTINGS):
                yield f"{path.stem} {conversation} {i}", template, {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", **settings}
        if "<|channel|>analysis" not in template:
            continue
        for conversation, messages in {**HARMONY_CONVERSATIONS, "one": CONVERSATIONS["one"]}.items():
            for i, settings in enumerate(HARMONY_SETTINGS):
                yield f"{path.stem} harmony {conversation} {i}", template, {"messages": messages, **settings}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--real", type=pathlib.Path, metavar="OUT.json")
    args = args.parse_args()
    cases = [render(*c) for c in (real() if args.real else fixtures())]
    # Templates and variables repeat: each is written once.
    templates, variables = [], []
    for case in cases:
        for key, known in (("template", templates), ("variables", variables)):
            if case[key] not in known:
                known.append(case[key])
            case[key] = known.index(case[key])
    out = args.real or ROOT / "tests/golden/chat_templates.json"
    rows = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    lists = [",\n".join(json.dumps(x, ensure_ascii=False) for x in known) for known in (templates, variables)]
    out.write_text('{"templates": [\n%s\n],\n"variables": [\n%s\n],\n"cases": [\n%s\n]}\n' % (*lists, rows))
    print(f"{out}: {len(cases)} cases, {sum('error' in c for c in cases)} of them errors")


if __name__ == "__main__":
    main()
