#!/usr/bin/env python3
"""Writes tests/golden/logits_smollm2.json, logits_tiny.json, logits_families.json and logits_lora.json: what Hugging Face transformers computes in float32 from our weights.

  python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch transformers gguf safetensors peft accelerate
  ninja -C build/dev tiny_model
  /tmp/golden/bin/python tests/tools/make_logits_golden.py models/SmolLM2-135M-Instruct.Q4_1.gguf build/dev/bin/tiny_model

With "-" for the demo model, the tiny models alone; with "families", the families' alone; with "lora", the adapters' alone.

Demo model: every GGUF tensor is dequantised by the gguf package (not by our code), Q and K rows are put back into Hugging Face's order
and the model runs in float32, so the file says what the quantised weights mean, free of any engine's rounding. transformers' own GGUF
loader must agree. Tiny models: the Hugging Face directories our C++ writer makes, read by transformers alone; besides the float32
logits, those with the engine's declared roundings, which our plain kernels must match closely. Families: one such model each.
Needed only to regenerate the files; src/model/golden_test.cc reads them.
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import eager_mask

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
TOP = 32          # highest logits kept per prompt
CONTINUE = 16     # greedy tokens
FIXED = [0, 1, 2, 17, 100, 198, 1000, 5000, 12345, 20000, 30000, 49151]

PROMPTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The quick brown fox jumps over the lazy dog. The",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Die Hauptstadt von Österreich ist Wien. La capitale de l'Italie est Rome. 日本の首都は",
    "1, 1, 2, 3, 5, 8, 13, 21,",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n"
    "Explain in three sentences why the sky is blue, and then name two other things that are blue.<|im_end|>\n<|im_start|>assistant\n",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, " * 12,
]

TINY = [  # arguments of tiny_model; 100 tokens each, beyond the original context of 64 that the scaled ropes claim
    ["seed=1"],
    ["seed=2", "dtype=BF16", "tied=0", "shards=3"],
    ["seed=3", "dtype=F16", "kv_heads=1"],
    ["seed=4", "family=qwen2", "rope_theta=1000000"],
    ["seed=5", "family=qwen2", "dtype=BF16", "tied=0", "kv_heads=4", "padded_rows=7"],
    ["seed=6", "rope_scaling=llama3", "rope_theta=500000", "rope_factor=8"],
    ["seed=7", "rope_scaling=linear", "rope_factor=4"],
    ["seed=8", "rope_scaling=yarn", "rope_factor=4"],
    ["seed=9", "layers=3", "hidden=96", "heads=3", "kv_heads=3", "head_dim=64", "ffn=160"],
]

FAMILIES = [  # one of each: every feature that a family adds is in one of them
    ["seed=41", "family=llama", "window=24"],
    ["seed=42", "family=qwen3", "head_dim=32"],
    ["seed=43", "family=phi3", "hidden=128", "heads=2", "kv_heads=1", "head_dim=64", "rotated=48", "rope_scaling=longrope", "rope_original_context=64", "tied=0"],
    ["seed=44", "family=phi3", "rope_scaling=longrope", "rope_original_context=2048", "window=40"],
    ["seed=45", "family=gemma2", "window=24", "soft_cap=2"],
    ["seed=46", "family=gemma3", "layers=3", "window=24", "rope_theta=1000000", "rope_scaling=linear", "rope_factor=8"],
    ["seed=47", "family=gemma3", "dtype=BF16", "head_dim=32", "window=16"],
    ["seed=48", "family=smollm3", "layers=4", "rope_theta=50000"],
    ["seed=53", "family=qwen3moe", "experts=6", "experts_used=3", "dtype=F16", "ffn=96"],
    ["seed=50", "family=gpt-oss", "experts=5", "window=24", "rope_scaling=yarn", "rope_factor=4", "tied=0", "ffn=96"],
    ["seed=54", "family=gpt-oss", "dtype=F16", "layers=3", "experts=4", "window=16", "rope_scaling=yarn", "rope_factor=8", "tied=0", "ffn=160", "shards=3"],
    ["seed=55", "family=gpt-oss", "experts=6", "experts_used=3", "window=24", "tied=0", "ffn=96", "quant=mxfp4"],
    ["seed=56", "family=qwen3moe", "layers=4", "experts=4", "ffn=96", "sparse_step=2", "dense_layer=3", "dense_ffn=160"],
]
FAMILY_TOKENS = 80

LORA = [  # a model, and an adapter for it
    (["seed=61"], ["rank=8", "alpha=16"]),
    (["seed=62", "kv_heads=1", "tied=0"], ["rank=5", "alpha=3", "rslora=1", "ranks=q_proj:2+mlp.up_proj:12", "seed=2"]),
    (["seed=63", "dtype=BF16"], ["rank=4", "dtype=BF16", "targets=q_proj+v_proj", "seed=3"]),
    (["seed=64", "family=qwen2", "dtype=F16"], ["rank=6", "dtype=F16", "targets=k_proj+o_proj+down_proj", "seed=4"]),
    (["seed=65", "family=phi3", "tied=0"], ["rank=8", "seed=5"]),
    (["seed=66", "family=gemma3", "layers=3", "window=24"], ["rank=8", "alpha=4", "seed=6"]),
    (["seed=67", "family=qwen3moe", "experts=4", "ffn=96"], ["rank=8", "targets=q_proj+k_proj+v_proj+o_proj", "seed=7"]),
    (["seed=68", "family=qwen3moe", "experts=4", "ffn=96"], ["rank=4", "targets=q_proj+gate_proj+up_proj+down_proj", "experts=each", "seed=8"]),
    (["seed=69", "family=qwen3moe", "experts=5", "ffn=96"], ["rank=4", "alpha=3", "targets=v_proj", "experts=stacked", "seed=9"]),
    (["seed=70", "family=gpt-oss", "experts=3", "experts_used=3", "ffn=96", "window=24", "rope_scaling=yarn", "rope_factor=4"], ["rank=3", "targets=q_proj+o_proj", "experts=stacked", "seed=10"]),
]


def reorder(weight, heads):
    """GGUF's interleaved rotary rows back to half-split: file row (h, i, j) is model row (h, j, i)."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def load_demo(path):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
    parts = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    state = {}
    for tensor in reader.tensors:
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        if tensor.name in names:
            state[names[tensor.name]] = torch.from_numpy(values)
            continue
        _, layer, part, kind = tensor.name.split(".")
        if part == "attn_q":
            values = reorder(values, heads)
        if part == "attn_k":
            values = reorder(values, kv_heads)
        state[f"model.layers.{layer}.{parts[part]}.{kind}"] = torch.from_numpy(np.ascontiguousarray(values))
    config = LlamaConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0], hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"), num_hidden_layers=field("llama.block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, rms_norm_eps=float(field("llama.attention.layer_norm_rms_epsilon")),
        rope_parameters={"rope_type": "default", "rope_theta": float(field("llama.rope.freq_base"))},
        max_position_embeddings=field("llama.context_length"), tie_word_embeddings="lm_head.weight" not in state)
    model = LlamaForCausalLM(config).float().eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model


def rounded(values, digits=5):
    return [round(float(v), digits) for v in values]


@torch.no_grad()
def judge_prompt(model, ids):
    logits = model(torch.tensor([ids])).logits[0].float()
    last = logits[-1]
    top = torch.topk(last, TOP)
    greedy, margins, line = [], [], list(ids)
    for _ in range(CONTINUE):
        step = model(torch.tensor([line])).logits[0, -1].float()
        best = torch.topk(step, 2)
        greedy.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        line.append(greedy[-1])
    logprobs = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return {"ids": ids, "top_ids": top.indices.tolist(), "top_logits": rounded(top.values), "fixed_ids": FIXED,
            "fixed_logits": rounded(last[FIXED]), "logsumexp": round(float(torch.logsumexp(last, 0)), 5),
            "prompt_logprobs": rounded(logprobs, 4), "greedy": greedy, "greedy_margins": rounded(margins, 4)}


def make_demo(path):
    model = load_demo(path)
    folder, name = str(pathlib.Path(path).parent), pathlib.Path(path).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    check = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    probe = torch.tensor([tokenizer(PROMPTS[1])["input_ids"]])
    with torch.no_grad():
        difference = float((check(probe).logits - model(probe).logits).abs().max())
    print(f"against transformers' GGUF loader: largest logit difference {difference:.2e}")
    assert difference < 1e-2, difference
    prompts = [{"text": text, **judge_prompt(model, tokenizer(text)["input_ids"])} for text in PROMPTS]
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    write("logits_smollm2.json", {"file": name, "sha256": digest, "prompts": prompts})


def round_like_engine(model, module, bf16_inputs):
    """Adds the two roundings our engine declares: the cache keeps K and V in bf16, and BF16 matrices meet bf16 inputs."""
    rounded_to_bf16 = lambda x: x.bfloat16().float()
    rotate = module.apply_rotary_pos_emb

    def rotate_and_round(q, k, *rest, **options):
        q, k = rotate(q, k, *rest, **options)
        return q, rounded_to_bf16(k)

    module.apply_rotary_pos_emb = rotate_and_round
    for layer in model.model.layers:
        layer.self_attn.v_proj.register_forward_hook(lambda _, inputs, output: rounded_to_bf16(output))
    if bf16_inputs:
        for part in model.modules():
            if isinstance(part, torch.nn.Linear):
                part.register_forward_pre_hook(lambda _, inputs: (rounded_to_bf16(inputs[0]),))
    return lambda: setattr(module, "apply_rotary_pos_emb", rotate)


@torch.no_grad()
def make_tiny(tool):
    cases = []
    for arguments in TINY:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([tool, "hf", folder, *arguments], check=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            tokens = len(AutoTokenizer.from_pretrained(folder))
            generator = np.random.default_rng(len(cases))
            ids = generator.integers(3, tokens, 100).tolist()
            logits = model(torch.tensor([ids])).logits[0]
            assert logits.dtype == torch.float32
            restore = round_like_engine(model, sys.modules[type(model).__module__], "dtype=BF16" in arguments)
            engine = model(torch.tensor([ids])).logits[0]
            restore()
            cases.append({"spec": arguments, "ids": ids, "argmax": logits[:, :tokens].argmax(-1).tolist(),
                          "last_logits": rounded(logits[-1, :tokens]), "rounded_logits": rounded(engine[-1, :tokens])})
    write("logits_tiny.json", {"cases": cases})


def engine_attention(module, query, key, value, mask, **options):
    """The reference's own attention over K and V as our cache keeps them."""
    rounded_to_bf16 = lambda x: x.bfloat16().float()
    eager = sys.modules[type(module).__module__].eager_attention_forward
    return eager(module, query, rounded_to_bf16(key), rounded_to_bf16(value), mask, **options)


@torch.no_grad()
def make_families(tool):
    AttentionInterface.register("engine", engine_attention)
    AttentionMaskInterface.register("engine", eager_mask)
    cases = []
    for arguments in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([tool, "hf", folder, *arguments], check=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).float().eval()  # MXFP4: dequantised by transformers
            tokens = len(AutoTokenizer.from_pretrained(folder))
            model.set_attn_implementation("eager")
            ids = np.random.default_rng(1000 + len(cases)).integers(3, tokens, FAMILY_TOKENS).tolist()
            logits = model(torch.tensor([ids])).logits[0]
            assert logits.dtype == torch.float32
            best = torch.topk(logits[:, :tokens], 2, dim=-1)
            model.set_attn_implementation("engine")
            if "dtype=BF16" in arguments:
                for part in model.modules():
                    if isinstance(part, torch.nn.Linear):
                        part.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().float(),))
            engine = model(torch.tensor([ids])).logits[0]
            difference = float((engine[-1] - logits[-1]).abs().max())
            print(f"{' '.join(arguments)}: {type(model).__name__}, roundings move logits by {difference:.4f} of {float(logits[-1].std()):.3f}")
            cases.append({"spec": arguments, "ids": ids, "argmax": best.indices[:, 0].tolist(),
                          "margins": rounded(best.values[:, 0] - best.values[:, 1], 3),
                          "last_logits": rounded(logits[-1, :tokens], 4), "rounded_logits": rounded(engine[-1, :tokens], 4)})
    write("logits_families.json", {"cases": cases})


@torch.no_grad()
def make_lora(tool):
    """PEFT's own reading of the adapters. Rounded: BF16 matrices, the adapter's too, meet bf16 inputs."""
    from peft import PeftModel
    AttentionInterface.register("engine", engine_attention)
    AttentionMaskInterface.register("engine", eager_mask)
    cases = []
    for arguments, adapter in LORA:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([tool, "hf", folder + "/base", *arguments], check=True)
            subprocess.run([tool, "lora", folder + "/lora", *arguments, "--", *adapter], check=True)
            base = AutoModelForCausalLM.from_pretrained(folder + "/base", dtype=torch.float32).eval()
            tokens = len(AutoTokenizer.from_pretrained(folder + "/base"))
            ids = np.random.default_rng(2000 + len(cases)).integers(3, tokens, FAMILY_TOKENS).tolist()
            base.set_attn_implementation("eager")
            bare = base(torch.tensor([ids])).logits[0]
            model = PeftModel.from_pretrained(base, folder + "/lora", autocast_adapter_dtype=False).float().eval()
        logits = model(torch.tensor([ids])).logits[0]
        assert logits.dtype == torch.float32
        best = torch.topk(logits[:, :tokens], 2, dim=-1)
        base.set_attn_implementation("engine")
        for name, part in model.named_modules():
            if isinstance(part, torch.nn.Linear) and "dtype=BF16" in (adapter if ".lora_" in name else arguments):
                part.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().float(),))
        engine = model(torch.tensor([ids])).logits[0]
        print(f"{' '.join(arguments)} with {' '.join(adapter)}: moves logits by {float((logits - bare)[-1].std()):.3f} of {float(bare[-1].std()):.3f}, "
              f"roundings by {float((engine[-1] - logits[-1]).abs().max()):.4f}")
        cases.append({"spec": arguments, "lora": adapter, "ids": ids, "argmax": best.indices[:, 0].tolist(),
                      "margins": rounded(best.values[:, 0] - best.values[:, 1], 3),
                      "last_logits": rounded(logits[-1, :tokens], 4), "rounded_logits": rounded(engine[-1, :tokens], 4)})
    write("logits_lora.json", {"cases": cases})


def write(name, value):
    path = GOLDEN / name
    lines = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace('},{', '},\n{')
    path.write_text(lines + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if sys.argv[1] != "lora":
        make_families(sys.argv[2])
    if sys.argv[1] != "families":
        make_lora(sys.argv[2])
    if sys.argv[1] not in ("families", "lora"):
        make_tiny(sys.argv[2])
    if sys.argv[1] not in ("-", "families", "lora"):
        make_demo(sys.argv[1])
