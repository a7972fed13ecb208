"""The requests that differential.py sends to vLLM and to baton-engine: one row a case. GREEDY ones must be answered with the same words, as far as two
arithmetics agree; of the others only the shape of the answer is compared. Rows are (name, path, body[, options]); options:
    method      POST, or GET where the body is None
    headers     beside Content-Type: application/json
    raw         the body is these bytes
    same        "text" compares what was generated, "shape" (default) does not
"""
MODEL = "smollm2"
LONG = "The history of the railway begins in the early nineteenth century. " * 200  # more tokens than --max-model-len
DROP = object()


def but(base, **changes):
    out = {**base, **changes}
    return {k: v for k, v in out.items() if v is not DROP}


TEXT = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 12, "temperature": 0}
RESP = {"model": MODEL, "input": "Name three colours.", "max_output_tokens": 12, "temperature": 0}
MSGS = {"model": MODEL, "messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 12, "temperature": 0}
IDS = {"model": MODEL, "token_ids": [504, 3575, 282, 4649, 314], "sampling_params": {"max_tokens": 8, "temperature": 0}}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"], "additionalProperties": False}}}
FLAT_TOOL = {"type": "function", "name": "get_weather", "parameters": TOOL["function"]["parameters"]}
CLAUDE_TOOL = {"name": "get_weather", "input_schema": TOOL["function"]["parameters"]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a"], "additionalProperties": False}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
EVERY = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def completions():
    def row(name, same="shape", base=TEXT, **changes):
        return ("completions " + name, "/v1/completions", but(base, **changes), {"same": same})

    good = [
        row("plain", "text"), row("stream", "text", stream=True), row("stream usage", "text", **USAGE), row("stream continuous usage", "text", **EVERY),
        row("stream options empty", "text", stream=True, stream_options={}), row("stream usage off", "text", stream=True, stream_options={"include_usage": False}),
        row("continuous usage alone", "text", stream=True, stream_options={"continuous_usage_stats": True}),
        row("no model", "text", model=DROP), row("null model", "text", model=None), row("empty model", "text", model=""),
        row("default length", "text", max_tokens=DROP), row("null length", "text", max_tokens=None), row("one token", "text", max_tokens=1),
        row("ids", "text", prompt=[504, 3575, 282, 4649, 314]), row("list of texts", "text", prompt=["One two three", "A B C"]),
        row("list of ids", "text", prompt=[[504, 3575], [282, 4649, 314]]), row("two prompts stream", "text", prompt=["One two three", "A B C"], **USAGE),
        row("logprobs", "text", logprobs=2), row("logprobs 0", "text", logprobs=0), row("logprobs stream", "text", logprobs=2, stream=True),
        row("logprobs as ids", "text", logprobs=1, return_tokens_as_token_ids=True), row("echo", "text", echo=True),
        row("echo only", "text", echo=True, max_tokens=0), row("echo logprobs", "text", echo=True, logprobs=1, max_tokens=1),
        row("echo logprobs nothing new", "text", echo=True, logprobs=1, max_tokens=0), row("echo stream", "text", echo=True, stream=True),
        row("prompt logprobs", "text", prompt_logprobs=1), row("prompt logprobs 0", "text", prompt_logprobs=0),
        row("token ids", "text", return_token_ids=True), row("token ids stream", "text", return_token_ids=True, stream=True),
        row("n 2", n=2, temperature=1, seed=1), row("n 2 stream", n=2, temperature=1, seed=1, **USAGE),
        row("stop string", "text", prompt="1 2 3 4 5 6 7", stop=" 1", max_tokens=24), row("stop list", "text", prompt="a b c a b c a b", stop=["zzz", " a"], max_tokens=24),
        row("stop stream", "text", prompt="a b c a b c a b", stop=[" a"], max_tokens=24, stream=True), row("stop null", "text", stop=None), row("stop empty", "text", stop=[]),
        row("stop included", "text", prompt="a b c a b c a b", stop=[" a"], include_stop_str_in_output=True, max_tokens=24),
        row("stop token", "text", stop_token_ids=[30, 28, 198]), row("min tokens", "text", min_tokens=12), row("ignore eos", "text", ignore_eos=True),
        row("logit bias", "text", logit_bias={"28": -100}), row("allowed ids", "text", allowed_token_ids=[28, 30, 42]), row("bad words", "text", bad_words=["Paris"]),
        row("penalties", "text", frequency_penalty=0.5, presence_penalty=0.5, repetition_penalty=1.1), row("seeded", temperature=0.8, seed=7, top_p=0.9, top_k=40, min_p=0.01),
        row("truncate", "text", truncate_prompt_tokens=3), row("truncate left", "text", truncate_prompt_tokens=3, truncation_side="left"), row("truncate -1", "text", prompt=LONG, truncate_prompt_tokens=-1, max_tokens=2),
        row("suffix", suffix="x"), row("user", "text", user="me"), row("unknown field", "text", frobnicate=1), row("best_of", best_of=1), row("best_of 2", best_of=2, temperature=1),
        row("nulls", "text", stop=None, logit_bias=None, logprobs=None, echo=None, stream=None, stream_options=None, seed=None, suffix=None, user=None, top_p=None, top_k=None),
        row("choice", structured_outputs={"choice": ["red", "blue"]}), row("regex", structured_outputs={"regex": "[0-9]{3}"}),
        row("json schema", max_tokens=24, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}),
        row("beam", use_beam_search=True, n=2, max_tokens=4), row("cache salt", "text", cache_salt="s"), row("request id", "text", request_id="abc"),
        row("leave no room", "text", max_tokens=2048), row("length as text", "text", max_tokens="12"), row("length as float", "text", max_tokens=12.0),
        row("temperature as text", "text", temperature="0"), row("stream as text", "text", stream="true"), row("stream as 1", "text", stream=1),
        row("thinking budget", thinking_token_budget=5), row("repetition detection", repetition_detection={"max_pattern_size": 3, "min_count": 3}),
        row("priority 0", "text", priority=0), row("skip special off", "text", skip_special_tokens=False), row("xargs", "text", vllm_xargs={"a": 1}),
        row("logprob token ids", logprobs=1, logprob_token_ids=[28]), row("stream interval", "text", stream=True, stream_interval=4),
        row("prompt logprobs all stream 0", "text", stream=True, prompt_logprobs=0),
    ]
    bad = [
        row("no prompt", prompt=DROP), row("null prompt", prompt=None), row("empty prompt", prompt=""), row("empty list", prompt=[]), row("list of empty", prompt=[""]), row("number prompt", prompt=7),
        row("object prompt", prompt={"a": 1}), row("mixed prompt", prompt=["a", 1]), row("negative id", prompt=[-1]), row("huge id", prompt=[999999]), row("float id", prompt=[1.5]),
        row("unknown model", model="gpt-4"), row("model number", model=5), row("temperature -1", temperature=-1), row("temperature 3", temperature=3), row("temperature text", temperature="hot"),
        row("temperature list", temperature=[1]), row("top_p 0", top_p=0), row("top_p 2", top_p=2), row("top_k -2", top_k=-2), row("top_k text", top_k="x"), row("min_p 2", min_p=2),
        row("frequency 3", frequency_penalty=3), row("presence -3", presence_penalty=-3), row("repetition 0", repetition_penalty=0), row("n 0", n=0), row("n -1", n=-1), row("n huge", n=100000, temperature=1),
        row("n greedy", n=2), row("n text", n="two"), row("n float", n=1.5), row("max_tokens 0", max_tokens=0), row("max_tokens -1", max_tokens=-1), row("max_tokens huge", max_tokens=1000000),
        row("max_tokens over", max_tokens=2049), row("max_tokens text", max_tokens="many"), row("max_tokens list", max_tokens=[1]), row("prompt too long", prompt=LONG),
        row("min over max", min_tokens=20), row("min -1", min_tokens=-1), row("logprobs -2", logprobs=-2), row("logprobs 21", logprobs=21), row("logprobs true", logprobs=True), row("logprobs text", logprobs="x"),
        row("prompt logprobs stream", prompt_logprobs=1, stream=True), row("prompt logprobs -2", prompt_logprobs=-2), row("prompt logprobs 21", prompt_logprobs=21),
        row("stream options alone", stream_options={"include_usage": True}), row("stream options text", stream=True, stream_options="x"), row("stop number", stop=5), row("stop empty text", stop=""),
        row("stop with empty", stop=["a", ""]), row("stop numbers", stop=[1]), row("stop token text", stop_token_ids=["a"]), row("stop token out", stop_token_ids=[999999]), row("bias key", logit_bias={"x": 1}),
        row("bias out", logit_bias={"999999": 1}), row("bias list", logit_bias=[1]), row("allowed empty", allowed_token_ids=[]), row("allowed out", allowed_token_ids=[999999]), row("bad words empty", bad_words=[""]),
        row("seed text", seed="x"), row("seed huge", seed=2**70), row("truncate -2", truncate_prompt_tokens=-2), row("truncate over", truncate_prompt_tokens=4096), row("side", truncate_prompt_tokens=3, truncation_side="up"),
        row("priority 1", priority=1), row("salt empty", cache_salt=""), row("salt slash", cache_salt="a/b"), row("kv params text", kv_transfer_params="x"), row("format unknown", response_format={"type": "x"}),
        row("format no schema", response_format={"type": "json_schema"}), row("two constraints", structured_outputs={"regex": "a", "choice": ["a"]}), row("no constraint", structured_outputs={}),
        row("bad regex", structured_outputs={"regex": "("}), row("bad grammar", structured_outputs={"grammar": "x"}), row("beam stream", use_beam_search=True, n=2, stream=True), row("embeds", prompt=DROP, prompt_embeds="x"),
        row("echo text", echo="maybe"), row("stream text", stream="maybe"), row("stream interval 0", stream=True, stream_interval=0),
    ]
    return good + bad


def chats():
    def row(name, same="shape", base=CHAT, **changes):
        return ("chat " + name, "/v1/chat/completions", but(base, **changes), {"same": same})

    say = lambda role, content, **more: {"role": role, "content": content, **more}
    good = [
        row("plain", "text"), row("stream", "text", stream=True), row("stream usage", "text", **USAGE), row("stream continuous usage", "text", **EVERY),
        row("both lengths", "text", max_completion_tokens=4), row("completion length", "text", max_tokens=DROP, max_completion_tokens=4), row("logprobs", "text", logprobs=True),
        row("top logprobs", "text", logprobs=True, top_logprobs=3), row("top logprobs stream", "text", logprobs=True, top_logprobs=3, stream=True), row("prompt logprobs", "text", prompt_logprobs=1),
        row("token ids", "text", return_token_ids=True), row("token ids stream", "text", return_token_ids=True, stream=True), row("n 2", n=2, temperature=1, seed=1),
        row("n 2 stream", n=2, temperature=1, seed=1, **USAGE), row("system", "text", messages=[say("system", "Be brief."), say("user", "Hi")]),
        row("parts", "text", messages=[say("user", [{"type": "text", "text": "Name"}, {"type": "text", "text": "a colour."}])]),
        row("turns", "text", messages=[say("user", "Hi"), say("assistant", "Hello"), say("user", "Name a colour.")]), row("named", "text", messages=[say("user", "Hi", name="Ann")]),
        row("developer", messages=[say("developer", "Be brief."), say("user", "Hi")]), row("odd role", messages=[say("wizard", "Hi")]),
        row("null content", "text", messages=[say("user", "Hi"), say("assistant", None, tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]), {"role": "tool", "tool_call_id": "c", "content": "ok"}]),
        row("continue", "text", messages=[say("user", "Count."), say("assistant", "1, 2, 3,")], add_generation_prompt=False, continue_final_message=True),
        row("echo", "text", messages=[say("user", "Count."), say("assistant", "1, 2,")], add_generation_prompt=False, continue_final_message=True, echo=True),
        row("no generation prompt", "text", add_generation_prompt=False), row("special tokens", "text", add_special_tokens=True), row("stop", "text", stop=["\n"], max_tokens=40),
        row("stop stream", "text", stop=["\n"], max_tokens=40, stream=True), row("json object", response_format={"type": "json_object"}, max_tokens=20), row("text format", "text", response_format={"type": "text"}),
        row("json schema", max_tokens=24, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}),
        row("choice stream", structured_outputs={"choice": ["red", "blue"]}, stream=True), row("tool none", "text", tools=[TOOL], tool_choice="none"), row("tool auto", tools=[TOOL]),
        row("tool auto stream", tools=[TOOL], stream=True), row("tool named", max_tokens=60, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_weather"}}),
        row("tool named stream", max_tokens=60, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_weather"}}, stream=True),
        row("tool required", max_tokens=60, tools=[TOOL], tool_choice="required"), row("tool required stream", max_tokens=60, tools=[TOOL], tool_choice="required", stream=True),
        row("effort", "text", reasoning_effort="low"), row("template kwargs", "text", chat_template_kwargs={"enable_thinking": False}), row("prompt text", "text", return_prompt_text=True),
        row("documents", "text", documents=[{"title": "a", "text": "b"}]), row("no model", "text", model=DROP), row("unknown field", "text", frobnicate={"a": [1]}), row("nulls", "text", tools=None, tool_choice=None, stop=None, logprobs=None, top_logprobs=None, n=None, stream=None, response_format=None),
        row("leave no room", max_tokens=2048, stop=["\n"]), row("include reasoning off", "text", include_reasoning=False), row("parallel off", tools=[TOOL], parallel_tool_calls=False),
        row("tool without type", tools=[{"function": TOOL["function"]}]), row("best_of", best_of=1),
    ]
    bad = [
        row("no messages", messages=DROP), row("null messages", messages=None), row("empty messages", messages=[]), row("text messages", messages="Hi"), row("message text", messages=["Hi"]), row("no role", messages=[{"content": "Hi"}]),
        row("no content", messages=[{"role": "user"}]), row("number content", messages=[say("user", 5)]), row("part without type", messages=[say("user", [{"text": "x"}])]), row("unknown part", messages=[say("user", [{"type": "wat", "wat": 1}])]),
        row("image", messages=[say("user", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])]), row("audio", messages=[say("user", [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])]),
        row("unknown model", model="gpt-4"), row("top without logprobs", top_logprobs=2), row("top 21", logprobs=True, top_logprobs=21), row("top -2", logprobs=True, top_logprobs=-2), row("logprobs text", logprobs="maybe"),
        row("too long", messages=[say("user", LONG)]), row("length huge", max_completion_tokens=1000000), row("length 0", max_tokens=0), row("length -1", max_completion_tokens=-1), row("both continue", continue_final_message=True, add_generation_prompt=True),
        row("continue default", messages=[say("user", "a"), say("assistant", "b")], continue_final_message=True), row("choice without tools", tool_choice="auto"), row("required without tools", tool_choice="required"),
        row("tools empty", tools=[]), row("tools text", tools="x"), row("tool without function", tools=[{"type": "function"}]), row("tool type", tools=[{"type": "x", "function": {"name": "f"}}]), row("choice unknown tool", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
        row("choice word", tools=[TOOL], tool_choice="always"), row("choice no name", tools=[TOOL], tool_choice={"type": "function"}), row("effort word", reasoning_effort="huge"), row("template", chat_template="{{ messages[0].content }}"),
        row("template kwargs text", chat_template_kwargs="x"), row("n greedy", n=2), row("temperature 3", temperature=3), row("temperature text", temperature="hot"), row("stop numbers", stop=[1]), row("stream options alone", stream_options={"include_usage": True}),
        row("format unknown", response_format={"type": "x"}), row("format no schema", response_format={"type": "json_schema"}), row("bad schema", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "wat"}}}),
        row("schema no name", response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}}), row("mm kwargs", mm_processor_kwargs={"a": 1}), row("salt empty", cache_salt=""), row("seed float", seed=1.5),
        row("error in stream", stream=True, temperature=-1), row("unknown model stream", stream=True, model="x"),
    ]
    return good + bad


def responses():
    def row(name, same="shape", **changes):
        return ("responses " + name, "/v1/responses", but(RESP, **changes), {"same": same})

    say = lambda role, content: {"role": role, "content": content}
    return [
        row("plain", "text"), row("stream", "text", stream=True), row("list", "text", input=[say("user", "Name a colour.")]), row("instructions", "text", instructions="Be brief."),
        row("parts", "text", input=[say("user", [{"type": "input_text", "text": "Hi"}])]), row("turns", "text", input=[say("user", "Hi"), say("assistant", "Hello"), say("user", "And?")]),
        row("store off", "text", store=False), row("metadata", "text", metadata={"a": "b"}), row("top logprobs", top_logprobs=2, include=["message.output_text.logprobs"]),
        row("json", max_output_tokens=24, text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}), row("tool auto", tools=[FLAT_TOOL]), row("tool required", max_output_tokens=60, tools=[FLAT_TOOL], tool_choice="required"),
        row("tool required stream", max_output_tokens=60, tools=[FLAT_TOOL], tool_choice="required", stream=True), row("no length", max_output_tokens=DROP, stop=["\n"]), row("truncation", "text", truncation="auto"), row("user", "text", user="me"),
        row("reasoning", "text", reasoning={"effort": "low"}), row("service tier", "text", service_tier="default"), row("penalties", "text", presence_penalty=0.5, frequency_penalty=0.5),
        row("no input", input=DROP), row("null input", input=None), row("number input", input=5), row("empty list", input=[]), row("unknown model", model="x"), row("background", background=True), row("background without store", background=True, store=False),
        row("previous", previous_response_id="resp_none"), row("previous odd", previous_response_id="nope"), row("prompt", prompt={"id": "x"}), row("temperature -1", temperature=-1), row("temperature text", temperature="hot"), row("length 0", max_output_tokens=0),
        row("length huge", max_output_tokens=1000000), row("include", include=["x"]), row("required without tools", tool_choice="required"), row("named without tools", tool_choice={"type": "function", "name": "f"}), row("item type", input=[{"type": "wat"}]),
        row("image", input=[say("user", [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}])]), row("truncation word", truncation="some"), row("too long", input=LONG),
        ("responses get unknown", "/v1/responses/resp_none", None, {}), ("responses get odd", "/v1/responses/nope", None, {}), ("responses cancel unknown", "/v1/responses/resp_none/cancel", {}, {}),
    ]


def messages():
    def row(name, same="shape", path="/v1/messages", **changes):
        return ("messages " + name, path, but(MSGS, **changes), {"same": same, "headers": {"anthropic-version": "2023-06-01", "x-api-key": "k"}})

    say = lambda role, content: {"role": role, "content": content}
    count = lambda name, **changes: row("count " + name, path="/v1/messages/count_tokens", max_tokens=DROP, temperature=DROP, **changes)
    return [
        row("plain", "text"), row("stream", "text", stream=True), row("system", "text", system="Be brief."), row("system parts", "text", system=[{"type": "text", "text": "Be brief."}]),
        row("parts", "text", messages=[say("user", [{"type": "text", "text": "Hi"}])]), row("turns", "text", messages=[say("user", "Hi"), say("assistant", "Hello"), say("user", "And?")]), row("stop", "text", stop_sequences=["\n"], max_tokens=40),
        row("stop stream", "text", stop_sequences=["\n"], max_tokens=40, stream=True), row("sampling", temperature=0.5, top_p=0.9, top_k=20), row("tool auto", tools=[CLAUDE_TOOL]), row("tool any", max_tokens=60, tools=[CLAUDE_TOOL], tool_choice={"type": "any"}),
        row("tool named", max_tokens=60, tools=[CLAUDE_TOOL], tool_choice={"type": "tool", "name": "get_weather"}), row("tool any stream", max_tokens=60, tools=[CLAUDE_TOOL], tool_choice={"type": "any"}, stream=True),
        row("tool result", messages=[say("user", "Weather?"), say("assistant", [{"type": "tool_use", "id": "t", "name": "get_weather", "input": {"city": "x"}}]), say("user", [{"type": "tool_result", "tool_use_id": "t", "content": "sunny"}])]),
        row("metadata", "text", metadata={"user_id": "u"}), row("thinking off", "text", thinking={"type": "disabled"}),
        row("no model", model=DROP), row("unknown model", model="x"), row("no length", max_tokens=DROP), row("length 0", max_tokens=0), row("length huge", max_tokens=1000000), row("no messages", messages=DROP), row("empty messages", messages=[]), row("role", messages=[say("wizard", "x")]),
        row("block type", messages=[say("user", [{"type": "wat"}])]), row("image", messages=[say("user", [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}])]), row("tool without name", tools=[CLAUDE_TOOL], tool_choice={"type": "tool"}),
        row("temperature -1", temperature=-1), row("temperature text", temperature="hot"), row("stop text", stop_sequences="x"), row("too long", messages=[say("user", LONG)]),
        count("plain"), count("system", system="Be brief."), count("tools", tools=[CLAUDE_TOOL]), count("unknown model", model="x"), count("no messages", messages=DROP),
    ]


def token_apis():
    def row(name, path, body, same="shape", **more):
        return (name, path, body, {"same": same, **more})

    gen = lambda name, same="text", **changes: row("generate " + name, "/inference/v1/generate", but(IDS, **changes), same)
    sampling = lambda **more: {"max_tokens": 8, "temperature": 0, **more}
    return [
        row("tokenize text", "/tokenize", {"model": MODEL, "prompt": "Hello, world!"}, "exact"), row("tokenize strings", "/tokenize", {"prompt": "Hello, wörld!", "return_token_strs": True}, "exact"),
        row("tokenize chat", "/tokenize", {"model": MODEL, "messages": CHAT["messages"]}, "exact"), row("tokenize chat open", "/tokenize", {"messages": CHAT["messages"], "add_generation_prompt": False}, "exact"),
        row("tokenize tools", "/tokenize", {"messages": CHAT["messages"], "tools": [TOOL]}, "exact"), row("tokenize plain", "/tokenize", {"prompt": "a", "add_special_tokens": False}, "exact"), row("tokenize empty", "/tokenize", {"prompt": ""}, "exact"),
        row("tokenize special", "/tokenize", {"prompt": "<|im_start|>user\nHi<|im_end|>"}, "exact"), row("tokenize nothing", "/tokenize", {}), row("tokenize number", "/tokenize", {"prompt": 5}), row("tokenize model", "/tokenize", {"model": "x", "prompt": "a"}),
        row("tokenize list", "/tokenize", {"prompt": ["a"]}), row("tokenize long", "/tokenize", {"prompt": LONG}, "exact"),
        row("detokenize", "/detokenize", {"model": MODEL, "tokens": [504, 3575, 282, 4649]}, "exact"), row("detokenize special", "/detokenize", {"tokens": [1, 504, 2]}, "exact"), row("detokenize empty", "/detokenize", {"tokens": []}, "exact"),
        row("detokenize nothing", "/detokenize", {}), row("detokenize text", "/detokenize", {"tokens": "a"}), row("detokenize negative", "/detokenize", {"tokens": [-1]}), row("detokenize out", "/detokenize", {"tokens": [999999]}), row("detokenize model", "/detokenize", {"model": "x", "tokens": [1]}),
        row("tokenizer info", "/tokenizer_info", None),
        row("render text", "/v1/completions/render", TEXT, "ids"), row("render texts", "/v1/completions/render", but(TEXT, prompt=["a", "b c"]), "ids"), row("render chat", "/v1/chat/completions/render", CHAT, "ids"), row("render chat tools", "/v1/chat/completions/render", but(CHAT, tools=[TOOL]), "ids"),
        row("render bad", "/v1/chat/completions/render", {"model": MODEL}), row("render model", "/v1/completions/render", but(TEXT, model="x")), row("render empty", "/v1/completions/render", but(TEXT, prompt="")),
        row("derender text", "/v1/completions/derender", {"model": MODEL, "generate_responses": [{"request_id": "r", "choices": [{"index": 0, "token_ids": [504, 3575], "finish_reason": "stop"}]}]}, "exact"),
        row("derender chat", "/v1/chat/completions/derender", {"model": MODEL, "generate_response": {"request_id": "r", "choices": [{"index": 0, "token_ids": [504, 3575], "finish_reason": "stop"}]}, "chat_request": CHAT}, "exact"),
        gen("plain"), gen("stream", stream=True), gen("stream usage", **USAGE), gen("logprobs", sampling_params=sampling(logprobs=2)), gen("prompt logprobs", sampling_params=sampling(prompt_logprobs=1)), gen("no model", model=DROP), gen("prompt ids", return_token_ids=True),
        gen("text mode", output_mode="text"), gen("n 2", "shape", sampling_params={"max_tokens": 4, "temperature": 1, "n": 2, "seed": 1}), gen("stop token", sampling_params=sampling(stop_token_ids=[28, 30, 42])),
    ]


def generator():
    return completions() + chats() + responses() + messages() + token_apis()
