"""Structured outputs through the official client at the gateway of a P/D stack: the real model, held to schemas, choices and calls."""
import json, re, unittest
from typing import Literal

import openai
from pydantic import BaseModel, Field

from harness import Stack


class Step(BaseModel):
    action: Literal["add", "subtract"]
    number: int = Field(ge=0, le=999)


class Plan(BaseModel):
    title: str = Field(max_length=24)
    steps: list[Step] = Field(min_length=1, max_length=2)
    final: bool


TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["city", "unit"]}}},
         {"type": "function", "function": {"name": "roll_dice", "parameters": {
             "type": "object", "properties": {"sides": {"type": "integer", "minimum": 2, "maximum": 20}}, "required": ["sides"]}}}]


TAG = {"format": {"type": "tag", "begin": "<a>", "content": {"type": "json_schema", "json_schema": {"type": "boolean"}}, "end": "</a>"}}


class Structured(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(prefill=1, decode=1).__enter__()
        cls.client = openai.OpenAI(base_url=f"{cls.stack.url}/v1", api_key="none", max_retries=0, timeout=60)
        cls.model = cls.client.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        cls.stack.__exit__(None, None, None)

    def ask(self, text, **fields):
        fields = {"max_tokens": 150, "temperature": 0, "parallel_tool_calls": False if "tools" in fields else openai.NOT_GIVEN} | fields
        return self.client.chat.completions.create(model=self.model, messages=[{"role": "user", "content": text}], **fields)

    def test_parse_into_a_model(self):
        parse = getattr(self.client.chat.completions, "parse", None) or self.client.beta.chat.completions.parse
        for seed in range(3):
            message = parse(model=self.model, messages=[{"role": "user", "content": "Plan how to get from 3 to 12."}], response_format=Plan, max_tokens=300,
                            temperature=1, seed=seed).choices[0].message
            self.assertIsInstance(message.parsed, Plan, message)

    def test_stream_is_the_whole_answer(self):
        schema = {"type": "json_schema", "json_schema": {"name": "plan", "strict": True, "schema": Plan.model_json_schema()}}
        whole = self.ask("Plan how to get from 3 to 12.", response_format=schema).choices[0]
        self.assertEqual(whole.finish_reason, "stop", whole)
        Plan.model_validate_json(whole.message.content)
        chunks = [c.choices[0].delta.content or "" for c in self.ask("Plan how to get from 3 to 12.", response_format=schema, stream=True)]
        self.assertEqual("".join(chunks), whole.message.content)
        self.assertGreater(len(chunks), 5)

    def test_choice_regex_and_grammar_in_both_spellings(self):
        for extra, pattern in (({"guided_choice": ["positive", "negative"]}, "positive|negative"),
                               ({"structured_outputs": {"choice": ["positive", "negative"]}}, "positive|negative"),
                               ({"guided_regex": r"\d{3}-\d{4}"}, r"\d{3}-\d{4}"),
                               ({"structured_outputs": {"structural_tag": json.dumps(TAG)}}, "<a>(true|false)</a>"),
                               ({"structured_outputs": {"grammar": 'root ::= "SELECT " col " FROM t"\ncol ::= "a" | "b"'}}, "SELECT (a|b) FROM t")):
            with self.subTest(**extra):
                answer = self.ask("How do you feel about this stack?", extra_body=extra).choices[0]
                self.assertRegex(answer.message.content, f"^({pattern})$")
                self.assertEqual(answer.finish_reason, "stop")
                text = self.client.completions.create(model=self.model, prompt="It is", max_tokens=40, temperature=0, extra_body=extra).choices[0].text
                self.assertRegex(text, f"^({pattern})$")

    def check(self, name, arguments):
        value = json.loads(arguments)
        if name == "roll_dice":
            self.assertTrue(2 <= value["sides"] <= 20)
        else:
            self.assertEqual((name, value["unit"] in ("celsius", "fahrenheit")), ("get_weather", True))

    def test_forced_calls(self):
        for choice, finish in (("required", "tool_calls"), ({"type": "function", "function": {"name": "roll_dice"}}, "stop")):
            with self.subTest(choice=choice):
                answer = self.ask("What is the weather in Oslo?", tools=TOOLS, tool_choice=choice).choices[0]
                self.assertEqual(answer.finish_reason, finish, answer)
                (call,) = answer.message.tool_calls
                self.check(call.function.name, call.function.arguments)
                chunks = [c.choices[0] for c in self.ask("What is the weather in Oslo?", tools=TOOLS, tool_choice=choice, stream=True)]
                pieces = [p for c in chunks for p in c.delta.tool_calls or ()]
                self.assertEqual((pieces[0].index, pieces[0].function.name), (0, call.function.name))
                self.assertEqual("".join(p.function.arguments for p in pieces), call.function.arguments)
                self.assertEqual(chunks[-1].finish_reason, finish)

    def test_refused_by_name(self):
        with self.assertRaisesRegex(openai.BadRequestError, re.escape('features not supported: "multipleOf" at #/properties/n')):
            self.ask("hi", extra_body={"guided_json": {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 2}}}})
        with self.assertRaisesRegex(openai.BadRequestError, "You can only use one kind of structured outputs"):
            self.ask("hi", response_format={"type": "json_object"}, extra_body={"guided_regex": "a"})

