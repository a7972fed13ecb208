"""Tool calls and reasoning through the official client, whole and streamed, at the gateway of a P/D stack: the real model repeats what its prompt shows."""
import json, unittest

import openai

import harness
from harness import Stack

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
THOUGHT = "<think>The user wants the weather.</think>"
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]
# A small model cannot be asked for a call, but it goes on with a pattern.
REPEAT = "{% for i in range(6) %}{{ messages[0].content }}<|im_end|>\n{% endfor %}"


class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(prefill=1, decode=1, engine_args=("--enable-auto-tool-choice", "--tool-call-parser=hermes", "--reasoning-parser=qwen3")).__enter__()
        cls.client = openai.OpenAI(base_url=f"{cls.stack.url}/v1", api_key="none", max_retries=0, timeout=60)
        cls.model = cls.client.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        cls.stack.__exit__(None, None, None)

    def ask(self, text, **fields):
        return self.client.chat.completions.create(model=self.model, messages=[{"role": "user", "content": text}], max_tokens=80, temperature=0,
                                                   extra_body={"chat_template": REPEAT}, **fields)

    def check_call(self, name, arguments):
        self.assertEqual(name, "get_weather")
        self.assertEqual(json.loads(arguments), {"city": "Paris", "days": 3})

    def test_whole(self):
        choice = self.ask(CALL, tools=TOOLS).choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls", choice)
        self.assertIsNone(choice.message.content)
        (call,) = choice.message.tool_calls
        self.check_call(call.function.name, call.function.arguments)
        self.assertTrue(call.id.startswith("chatcmpl-tool-"))

    def test_streamed(self):
        chunks = [c.choices[0] for c in self.ask(CALL, tools=TOOLS, stream=True)]
        pieces = [p for c in chunks for p in c.delta.tool_calls or ()]
        self.assertEqual((pieces[0].index, pieces[0].function.name, pieces[0].function.arguments), (0, "get_weather", ""))
        self.assertTrue(all(p.id is None and p.function.name is None for p in pieces[1:]))
        self.assertGreater(len(pieces), 4, "the arguments come in pieces")
        self.check_call(pieces[0].function.name, "".join(p.function.arguments for p in pieces))
        self.assertEqual(chunks[-1].finish_reason, "tool_calls")

    def test_clients_own_accumulation(self):
        with self.client.chat.completions.stream(model=self.model, messages=[{"role": "user", "content": THOUGHT + CALL}], max_tokens=80, temperature=0,
                                                 tools=TOOLS, extra_body={"chat_template": REPEAT}) as stream:
            message = stream.get_final_completion().choices[0].message
        self.check_call(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments)
        self.assertEqual(message.model_extra["reasoning_content"], "The user wants the weather.")

    def test_reasoning(self):
        message = self.ask(THOUGHT + "It is sunny.").choices[0].message
        self.assertEqual((message.model_extra["reasoning_content"], message.content), ("The user wants the weather.", "It is sunny."))

    def test_without_tools_it_is_text(self):
        self.assertEqual(self.ask(CALL).choices[0].message.content, CALL)
        self.assertEqual(self.ask(CALL, tools=TOOLS, tool_choice="none").choices[0].message.content, CALL)

    def test_refused_by_name(self):
        with self.assertRaises(openai.BadRequestError):
            self.ask(CALL, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "other"}})


# gpt-oss's format from a model of another family: its messages are what the prompt shows.
HARMONY = ('<|channel|>analysis<|message|>The user wants the weather.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather '
           '<|constrain|>json<|message|>{"city": "Paris", "days": 3}<|call|>')
REPEAT_TURNS = "{% for i in range(4) %}<|start|>assistant{{ messages[0].content }}<|im_end|>\n{% endfor %}<|start|>assistant"


class Harmony(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(prefill=0, decode=1, engine_args=("--reasoning-parser=openai_gptoss", "--enable-auto-tool-choice", "--tool-call-parser=openai")).__enter__()
        cls.client = openai.OpenAI(base_url=f"{cls.stack.url}/v1", api_key="none", max_retries=0, timeout=60)
        cls.model = cls.client.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        cls.stack.__exit__(None, None, None)

    def ask(self, **fields):
        return self.client.chat.completions.create(model=self.model, messages=[{"role": "user", "content": HARMONY}], max_tokens=120, temperature=0,
                                                   extra_body={"chat_template": REPEAT_TURNS}, **fields)

    def test_whole(self):
        choice = self.ask(tools=TOOLS).choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls", choice)
        self.assertEqual((choice.message.content, choice.message.model_extra["reasoning_content"]), (None, "The user wants the weather."))
        (call,) = choice.message.tool_calls
        self.assertEqual((call.function.name, json.loads(call.function.arguments)), ("get_weather", {"city": "Paris", "days": 3}))

    def test_streamed(self):
        chunks = [c.choices[0] for c in self.ask(tools=TOOLS, stream=True)]
        self.assertEqual("".join((c.delta.model_extra or {}).get("reasoning_content") or "" for c in chunks), "The user wants the weather.")
        pieces = [p for c in chunks for p in c.delta.tool_calls or ()]
        self.assertEqual((pieces[0].index, pieces[0].function.name), (0, "get_weather"))
        self.assertEqual(json.loads("".join(p.function.arguments for p in pieces)), {"city": "Paris", "days": 3})
        self.assertEqual(chunks[-1].finish_reason, "tool_calls")
        self.assertNotIn("<|", "".join(c.delta.content or "" for c in chunks))

    def test_tokens_become_words_as_a_chat_has_them(self):
        """Derender keeps the special tokens that a chat keeps."""
        port = self.stack.engine_port("engine-0")
        ask = lambda path, body: json.loads(harness.request(port, "POST", path, body)[2])
        ids = ask("/tokenize", {"prompt": "Yes<|im_end|>", "add_special_tokens": False})["tokens"]
        got = ask("/v1/chat/completions/derender", {"chat_request": {"messages": [{"role": "user", "content": "hi"}]},
                                                    "generate_response": {"choices": [{"index": 0, "token_ids": ids, "finish_reason": "stop"}]}})
        self.assertEqual(got["choices"][0]["message"]["content"], "Yes<|im_end|>")

    def test_effort_by_name(self):
        with self.assertRaises(openai.BadRequestError):
            self.ask(reasoning_effort="minimal")
