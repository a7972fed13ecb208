"""Differences from vLLM 0.32 that stay, each with its reason: (pattern on the case's name, pattern on the difference, why). A row that no longer matches
anything is named at the end, so that the list stays true."""
import re

ROWS = [
    # What we add.
    (r"^chat|derender chat|/v1/chat/completions$|invocations chat", r"adds choices\[\]\.message\.(reasoning_content|tool_calls)", "keys of vLLM 0.11, which the users' guides show, beside those of 0.32"),
    (r"^messages|/v1/messages$", r"adds stop_sequence: null", "Anthropic's own answers have it"),
    (r"metrics$", r"adds vllm:(corrupted_requests|prompt_tokens_recomputed|time_per_output_token_seconds)(_total|_created)?:", "series of vLLM 0.11 that dashboards draw"),
    (r"^embeddings metrics", r"adds vllm:tool_call_parser_invocations", "the same series whatever the engine is for"),
    (r"^route responses render", r"lacks sampling_params.extra_args", "vLLM's own bookkeeping"),
    (r"metrics$", r"cache_config_info: labels", "what is true of this cache, and the model's name as everywhere"),
    (r"metrics$", r"header content-type: 'text/plain; version=1.0.0", "the older version of the format, which every scraper reads; the text is the same"),
    (r"^(server|method|route|embeddings)", r"adds error(\.\w+)?: (object|number|string|null)$", "the error in OpenAI's shape, as vLLM 0.11 had it, beside `detail`"),
    (r"^(server head|method HEAD /v1/models)", r"^status: 405 there \(\), 200 here", "HEAD is what GET is: a probe may ask so"),
    # What we leave out.
    (r"^(completions|chat)", r"chunk lacks (choices\[\]\.)?(token_ids|prompt_token_ids|prompt_text): null", "a chunk without ids says nothing of them: the gateway asks for ids beside the request and takes them out again, "
     "so streams look alike through it and without it"),
    (r"^(completions|chat)", r"chunk lacks choices\[\]\.delta\.content: null", "a piece of a tool call says nothing of content"),
    (r"^(completions|chat)", r"chunk adds choices\[\]\.delta\.content: string", "the last chunk of a text may bear an empty piece"),
    (r"^completions echo stream", r"prompt_token_ids", "ids that nobody asked for"),
    (r"^chat echo", r"prompt_logprobs", "likewise: vLLM scores the prompt of any echo"),
    (r"^responses", r"lacks .*\b(tools\[\]|output\[\]|item|text|format|reasoning)\.(\w+\.)?\w+: null", "tools, formats and reasoning are repeated as they came, without the nulls of the official client's newest types"),
    (r"^generate", r"weight_versions|mm_placeholders", "weights do not change while the server runs, prompts are text: null"),
    (r"^tokenizer info", r"added_tokens_decoder|name_or_path|truncation_side|tokenizer_class|lacks|adds", "the model's own tokenizer_config.json, not what a Python class makes of it"),
    (r"^render|render$", r"sampling_params\.(output_kind|skip_clone|skip_reading_prefix_cache)", "vLLM's own bookkeeping, which /inference/v1/generate does not want"),
    (r"^render|render$", r"adds .*sampling_params\.", "all parameters are written, defaults too"),
    (r"^chat stream continuous usage", r"chunk lacks usage\.completion_tokens_details: null", "usage within a stream is counts alone"),
    (r"^server server info", r"^status: 200 there .* 404 here", "vLLM's own objects; --print-config says what ours are"),
    (r"^server (abort requests|pause|resume)", r"^status: \d+ there .* 404 here", "for training with weights that change, which ours do not"),
    (r"^route batch", r"^status: 200 there .* 404 here", "several conversations a request: ask them at once"),
    (r"^embeddings embed v2", r"^status: 400 there .* 404 here", "Cohere's API"),
    (r"^embeddings truncate -1", r"usage|cosine", "one token less: every sequence keeps room for one behind it"),
    (r"^embeddings embed dtype", r"^status: 200 there .* 501 here", "not implemented, and said so, never passed over"),
    # What we take and vLLM refuses.
    (r"salt slash|tools empty|chat template$|stop text|length over|stream interval 0", r"^status: 400 there .* 200 here", "taken: no harm in it"),
    (r"messages tool (any|named)$", r"^status: 400 there", "a call that was cut off is no client's mistake: its input is {}"),
    # What we refuse otherwise.
    (r"completions embeds|chat mm kwargs|responses item type", r"^status: \d+ there .* 501 here", "not implemented, and said so, never passed over"),
    (r"detokenize out", r"^status: 200 there .* 400 here", "an id that is none is an error, not an empty text"),
    (r"^body (nan|infinity|lone surrogate|bom)", r"^status: 200 there .* 400 here|error\.(type|param|message)", "no JSON (RFC 8259), and said so; Python reads it"),
    (r"^embeddings (generating|chat) is not here", r"^status: 404 there .* 400 here", "says why"),
    # In other words.
    (r"image|audio|unknown part|part without type", r"error\.message", "says what a text model takes"),
    (r"empty list|empty messages|null messages|null input|no messages|negative id|seed|truncate -2|logprobs text|named without tools|bad (regex|schema|grammar)|beam stream|block type|length huge", r"error\.message", "the same in our words"),
    (r"^messages|/v1/messages$", r"error\.code: 400 there, None here|adds type: string|lacks error\.(code|param)|error\.(param|type)", "an error of /v1/messages has Anthropic's shape whoever finds it; vLLM's framework answers some in OpenAI's"),
    (r"empty prompt|empty list|logprobs text|truncate -2", r"error\.(param|type)", "found at another place: the field is named, or plain, all the same"),
    (r"^body not utf8", r"lacks detail|adds error", "found where the body is read, as what is no JSON"),
    (r"^body big integer|^embeddings (dimensions|negative id|truncate 0)", r"error\.(message|type|param)", "the same in our words"),
    (r"^embeddings (unknown model|truncate over)|^body of a megabyte", r"error\.param", "the field is named, or by its tokens"),
    (r"^chat (null|empty) messages|^chat part without type|^render empty", r"error\.(param|type)", "the body's check finds it here, the template's there"),
    (r"^chat choice no name|^responses background$", r"error\.param: '[\w.]+' there, None here", "the message names the field"),
    (r".", r"error\.param: 'body\.[\w.]+' there, 'body(\.[\w.]+)?' here", "the same field, to another depth"),
]


def find(name, difference):
    for row in ROWS:
        if re.search(row[0], name) and re.search(row[1], difference):
            return row
    return None
