#!/usr/bin/env python3
"""Turns the demo model's GGUF file into a Hugging Face directory in bf16, which vLLM serves: make_hf_model.py MODEL.gguf OUT_DIR

Every tensor is dequantised; Q and K rows go from GGUF's interleaved rotary order back to half-split. Needs gguf, torch, safetensors,
transformers (for the tokenizer). Llama architecture only.
"""
import json, os, sys
import gguf, torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def half_split(weight, heads):
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def main(source, out):
    reader = gguf.GGUFReader(source)
    field = lambda name: reader.fields["llama." + name].contents()
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    tensors = {}
    for t in reader.tensors:
        base = t.name.removesuffix(".weight")
        data = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy())
        if base in TOP:
            name = TOP[base]
        else:
            _, layer, part = base.split(".")
            name = f"model.layers.{layer}.{NAMES[part]}"
            if part in ("attn_q", "attn_k"):
                data = half_split(data, heads if part == "attn_q" else kv_heads)
        tensors[name + ".weight"] = data.to(torch.bfloat16).contiguous()
    os.makedirs(out, exist_ok=True)
    save_file(tensors, f"{out}/model.safetensors", metadata={"format": "pt"})
    vocab, width = tensors["model.embed_tokens.weight"].shape
    tokenizer = AutoTokenizer.from_pretrained(os.path.dirname(os.path.abspath(source)), gguf_file=os.path.basename(source))
    tokenizer.save_pretrained(out)
    json.dump({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "vocab_size": vocab,
        "num_hidden_layers": field("block_count"), "intermediate_size": field("feed_forward_length"), "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": width // heads, "rms_norm_eps": float(field("attention.layer_norm_rms_epsilon")),
        "rope_theta": float(field("rope.freq_base")), "max_position_embeddings": field("context_length"), "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in tensors, "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}, open(f"{out}/config.json", "w"), indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
