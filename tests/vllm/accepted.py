"""Differences from vLLM 0.32 that stay, each with its reason: (pattern on the case's name, pattern on the difference, why). A row that no longer matches
anything is named at the end, so that the list stays true."""
import re

ROWS = [
    # What we add.
    (r"^chat|derender chat", r"adds choices\[\]\.message\.(reasoning_content|tool_calls)", "keys of vLLM 0.11, which the users' guides show, beside those of 0.32"),
    (r"^messages", r"adds stop_sequence: null", "Anthropic's own answers have it"),
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
    (r"^render", r"sampling_params\.(output_kind|skip_clone|skip_reading_prefix_cache)", "vLLM's own bookkeeping, which /inference/v1/generate does not want"),
    (r"^render", r"adds .*sampling_params\.", "all parameters are written, defaults too"),
    (r"^chat stream continuous usage", r"chunk lacks usage\.completion_tokens_details: null", "usage within a stream is counts alone"),
    # What we take and vLLM refuses.
    (r"salt slash|tools empty|chat template$|stop text|length over|stream interval 0", r"^status: 400 there .* 200 here", "taken: no harm in it"),
    (r"messages tool (any|named)$", r"^status: 400 there", "a call that was cut off is no client's mistake: its input is {}"),
    # What we refuse otherwise.
    (r"completions embeds|chat mm kwargs|responses item type", r"^status: \d+ there .* 501 here", "not implemented, and said so, never passed over"),
    (r"detokenize out", r"^status: 200 there .* 400 here", "an id that is none is an error, not an empty text"),
    (r"^completions logprobs true", r"^status: 200 there .* 400 here", "a truth is no number of logprobs"),
    # In other words.
    (r"image|audio|unknown part|part without type", r"error\.message", "says what a text model takes"),
    (r"empty list|empty messages|null messages|null input|no messages|negative id|seed|truncate -2|logprobs text|named without tools|bad (regex|schema|grammar)|beam stream|block type|length huge", r"error\.message", "the same in our words"),
    (r"^messages", r"error\.code: 400 there, None here|adds type: string|lacks error\.(code|param)|error\.(param|type)", "an error of /v1/messages has Anthropic's shape whoever finds it; vLLM's framework answers some in OpenAI's"),
    (r"empty prompt|empty list|logprobs text|truncate -2", r"error\.(param|type)", "found at another place: the field is named, or plain, all the same"),
    (r"^chat (null|empty) messages|^chat part without type|^render empty", r"error\.(param|type)", "the body's check finds it here, the template's there"),
    (r"^chat choice no name|^responses background$", r"error\.param: '[\w.]+' there, None here", "the message names the field"),
    (r".", r"error\.param: 'body\.[\w.]+' there, 'body(\.[\w.]+)?' here", "the same field, to another depth"),
]


def find(name, difference):
    for row in ROWS:
        if re.search(row[0], name) and re.search(row[1], difference):
            return row
    return None
