"""Writes a tiny Llama, or with experts a tiny Qwen3-MoE, with random F32 weights and a byte tokenizer as a Hugging Face directory, for tests that want a model of a certain shape."""
import array, json, os, random, struct

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_alphabet():
    """The printable character that stands for each byte in byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def tokenizer():
    tokens = SPECIAL + byte_alphabet()
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, t in enumerate(SPECIAL)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": level, "post_processor": None,
            "decoder": level, "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                                        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens)}, "merges": []}}


def write(directory, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=32, ffn=128, vocab=288, seed=1, experts=0):
    os.makedirs(directory, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocab, "max_position_embeddings": 2048,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
              "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}
    if experts:
        config |= {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": ffn,
                   "norm_topk_prob": True}
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {at + "input_layernorm.weight": (hidden,), at + "post_attention_layernorm.weight": (hidden,), at + "self_attn.q_proj.weight": (heads * head_dim, hidden),
                   at + "self_attn.k_proj.weight": (kv_heads * head_dim, hidden), at + "self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
                   at + "self_attn.o_proj.weight": (hidden, heads * head_dim)}
        if experts:
            shapes |= {at + "self_attn.q_norm.weight": (head_dim,), at + "self_attn.k_norm.weight": (head_dim,), at + "mlp.gate.weight": (experts, hidden)}
        for mlp in [f"{at}mlp.experts.{x}." for x in range(experts)] or [at + "mlp."]:
            shapes |= {mlp + "gate_proj.weight": (ffn, hidden), mlp + "up_proj.weight": (ffn, hidden), mlp + "down_proj.weight": (hidden, ffn)}
    rng, header, data = random.Random(seed), {}, b""
    for name, shape in shapes.items():
        norm, n = len(shape) == 1, shape[0] * (shape[1] if len(shape) > 1 else 1)
        spread = 0.1 if norm else 2 / shape[1] ** 0.5
        values = array.array("f", (rng.gauss(1 if norm else 0, spread) for _ in range(n))).tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{directory}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    for name, value in (("config", config), ("tokenizer", tokenizer()), ("tokenizer_config", {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"})):
        with open(f"{directory}/{name}.json", "w") as f:
            json.dump(value, f)
