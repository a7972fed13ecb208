#!/usr/bin/env python3
"""Writes reference cases for src/text/tokenizer_reference_test.cc: DIR/<family>/{tokenizer.json, tokenizer_config.json, cases.bin}.

    make_tokenizer_cases.py --out DIR [--megabytes N] [--vocab N] [--seed N]

Each family is a tokenizer whose pre-tokenizer, normalizer, post-processor, added tokens and model flags are those of the real model
family, with a vocabulary trained here on the corpus; the ids come from Hugging Face `tokenizers` (PyPI). cases.bin is a sequence of
    u32 text bytes | text | u32 count | u32 id ... (add_special_tokens=True) | u32 text bytes | decoded text (skip_special_tokens=False)
little endian. The corpus is made from a seed: every Unicode block, code, whitespace runs, emoji, right-to-left text, digits,
contractions, added tokens in odd places."""

import argparse
import json
import pathlib
import random
import struct
import time

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (  # gpt-oss, Phi-4-mini: tekken with contractions at the end of words and digits by three
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
]


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=use_regex)


def special(text, **kw):
    return AddedToken(text, special=True, normalized=False, **kw)


def template(token, ids):
    return processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, ids[token])])


# name: (pre-tokenizer, normalizer, added tokens, BOS the post-processor adds, ignore_merges)
FAMILIES = {
    "llama3": (
        pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)]),
        None,
        [special(t) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")],
        "<|begin_of_text|>",
        True,
    ),
    "qwen2": (
        pre_tokenizers.Sequence([split(QWEN2), byte_level(False)]),
        normalizers.NFC(),
        [special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
        + [AddedToken(t, normalized=False) for t in ("<tool_call>", "</tool_call>", "<think>", "</think>")],
        None,
        False,
    ),
    "smollm": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
        None,
        [special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<empty_output>")],
        None,
        False,
    ),
    "gpt-2": (
        byte_level(True),
        None,
        [AddedToken("<|endoftext|>", special=True, normalized=True)],
        None,
        False,
    ),
    "tekken": (
        pre_tokenizers.Sequence([split(TEKKEN), byte_level(False)]),
        None,
        [special(t) for t in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]")],
        "<s>",
        True,
    ),
    "deepseek-v3": (
        pre_tokenizers.Sequence([split(p) for p in DEEPSEEK_V3] + [byte_level(False)]),
        None,
        [special("<｜begin▁of▁sentence｜>"), special("<｜end▁of▁sentence｜>"), AddedToken("<｜User｜>", normalized=False)],
        "<｜begin▁of▁sentence｜>",
        False,
    ),
    "o200k": (
        pre_tokenizers.Sequence([split(O200K), byte_level(False)]),
        None,
        [special(t) for t in ("<|startoftext|>", "<|return|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>")],
        None,
        False,
    ),
    # Pieces of SentencePiece: no byte level, no words; see build_pieces().
    "gemma": (
        pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False),
        normalizers.Replace(" ", "▁"),
        [special(t) for t in ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")]
        + [AddedToken(t, normalized=False) for t in ("\n\n", "\t\t", "▁▁▁", "<table>")],
        "<bos>",
        False,
    ),
    # No real model: every option of an added token at once.
    "added": (
        pre_tokenizers.Sequence([split(QWEN2), byte_level(False)]),
        normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]),
        [
            special("<mask>", lstrip=True),
            special("<end>", rstrip=True),
            special("<both>", lstrip=True, rstrip=True),
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("<endless>", normalized=False),
            # ASCII: the reference decodes an added token's é as the byte 0xe9, which we do not imitate; lower case: its newer
            # versions decode to the normalised form, its older ones to the form as written
            AddedToken("strasse", normalized=True),
            AddedToken("foo bar", normalized=True, lstrip=True),
        ],
        None,
        False,
    ),
}
ADDED_TEXT = sorted({t.content for family in FAMILIES.values() for t in family[2]})

PROSE = [
    "The quick brown fox jumps over the lazy dog. It's what they've always done, isn't it? I'll say: WE'RE DONE, y'all'd've.",
    "Der schnelle braune Fuchs springt über den faulen Hund; Straße, STRASSE, Strassen, Größe, Öl. L'été, où êtes-vous? ¿Qué pasó mañana?",
    "Быстрая коричневая лиса прыгает через ленивую собаку. Γρήγορη καφέ αλεπού. Шәһәр, ғылым.",
    "敏捷的棕色狐狸跳过了懒狗。素早い茶色の狐がのろまな犬を飛び越える。빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول. השועל החום המהיר קופץ מעל הכלב העצלן. روباه قهوه‌ای",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ দ্রুত বাদামী শিয়াল",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ☕️ 1️⃣ 🤷🏿‍♀️ e\u0301 o\u0308 a\u0323\u0302 \u1100\u1161\u11a8 ﬁ ſ 'ſ K Å",
    "In 2024, 1234567 people paid $3.50 (or 3,50 €) for ½ of ² and Ⅷ; call +49-30-123456 on 12/31/1999 at 23:59:59.",
]
CODE = [
    "def f(x):\n    if x > 0:\n\t\treturn [i**2 for i in range(x)]  # comment\n    return None\n",
    "#include <vector>\nint main(int argc, char** argv) {\n  std::vector<int> v{1,2,3};\n\n\n  return v[0]!=argc;\n}\r\n",
    'SELECT * FROM "t" WHERE a<=10 AND b LIKE \'%x\';\n{"key": [1, 2.5e-3, null], "s": "a\\n\\u00e9"}\n',
    "for(;;){}//---====!!!\n<html><body class='a-b'>&nbsp;</body></html>\n$ ls -la ~/.config | grep -v '^#'\n",
]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\n \n", "\u00a0", "\u2003\u2003", "\u3000", "\u2028", "\x0b", "\x1c", "\u200b", ""]


# Cased letters and digits of Unicode 17: what the reference's Lowercase and Digits do with them depends on the Rust it was built with.
UNICODE_17 = [(0xA7CE, 0xA7CF), (0xA7D2, 0xA7D5), (0x11DE0, 0x11DE9), (0x16EA0, 0x16ED3), (0x16FF4, 0x16FF6)]


def corpus(seed, size):
    rng = random.Random(seed)
    points = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and not any(a <= c <= b for a, b in UNICODE_17)]
    lines = []
    for start in range(0, len(points), 128):  # a piece of every block, in order and shuffled, assigned or not
        block = [chr(c) for c in points[start : start + 128]]
        if points[start] < 0x33480 or rng.random() < 0.02:
            if rng.random() < 0.5:
                rng.shuffle(block)
            lines.append("".join(c + rng.choice(["", "", "", " ", "a", "1", "'", "\n"]) for c in block))
    total = 0
    while total < size:  # as much again of mixed text
        parts = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.35:
                text = rng.choice(PROSE)
                a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
                parts.append(text[a:b])
            elif kind < 0.55:
                text = rng.choice(CODE)
                a = rng.randrange(len(text))
                parts.append(text[a : a + rng.randint(1, 120)])
            elif kind < 0.65:
                parts.append(rng.choice(SPACES) * rng.randint(1, 6))
            elif kind < 0.72:
                parts.append(rng.choice(ADDED_TEXT))
            elif kind < 0.76:
                token = rng.choice(ADDED_TEXT)
                parts.append(rng.choice([" ", "\n", "a", "_"]) + token[: rng.randint(1, len(token))] + rng.choice(["  ", "s", "", "é"]))
            elif kind < 0.84:
                parts.append("".join(chr(rng.choice(points[:0x3000])) for _ in range(rng.randint(1, 30))))
            elif kind < 0.88:
                parts.append("".join(chr(rng.choice(points)) for _ in range(rng.randint(1, 10))))
            elif kind < 0.92:
                parts.append(rng.choice(["'", "’"]) + rng.choice(["s", "S", "t", "RE", "rE", "ve", "LL", "l", "m", "D", "ſ", "x"]))
            elif kind < 0.96:
                parts.append(str(rng.getrandbits(rng.randint(1, 70))))
            else:
                parts.append(rng.choice("aA1 \n!é中🎉ا") * rng.randint(1, 200))
            if rng.random() < 0.5:
                parts.append(rng.choice(SPACES))
        line = "".join(parts)
        lines.append(line)
        total += len(line.encode())
    rng.shuffle(lines)
    lines.append("")
    lines.append("ab" * 20000)  # one word, far past any cache or short path
    return lines


def build_pieces(name, lines, vocab_size):
    """BPE over characters, with the 256 bytes as tokens for what the vocabulary lacks."""
    pre, normalizer, added, bos, _ = FAMILIES[name]
    base = Tokenizer(models.BPE())
    base.normalizer = normalizer
    base.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next", invert=False)  # as words; the model itself has none
    base.train_from_iterator(PROSE * 30 + CODE * 30, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, min_frequency=2))
    model = json.loads(base.to_str())["model"]
    vocab = {}
    for text in [t.content for t in added] + [f"<0x{b:02X}>" for b in range(256)] + list(model["vocab"]):
        vocab.setdefault(text, len(vocab))
    merges = [tuple(m) for m in model["merges"]]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.normalizer, tok.pre_tokenizer = normalizer, pre
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_tokens(added)
    tok.post_processor = template(bos, {bos: tok.token_to_id(bos)})
    return tok


def build(name, lines, vocab_size):
    pre, normalizer, added, bos, ignore_merges = FAMILIES[name]
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre
    if normalizer is not None:
        base.normalizer = normalizer
    base.train_from_iterator(
        lines[: len(lines) // 2] + PROSE * 30 + CODE * 30,
        trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=2
        ),
    )
    model = json.loads(base.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(m) for m in model["merges"]]
    if ignore_merges:  # what tells the flag: whole words in the vocabulary that no merges lead to
        for word in ("ĠTheĠ", "Ġbrownie", "brownfox", "Ġ123", "straÃŁe", "ĠWE"):
            vocab.setdefault(word, len(vocab))
        del merges[-20:]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    tok.pre_tokenizer = pre
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.decoder = decoders.ByteLevel()
    tok.add_tokens(added)
    ids = {t.content: tok.token_to_id(t.content) for t in added}
    if bos is not None:
        tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template(bos, ids)])
    else:
        tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=pathlib.Path, required=True)
    args.add_argument("--megabytes", type=float, default=0.8, help="of mixed text, beside 1 MB of every Unicode block")
    args.add_argument("--vocab", type=int, default=4000)
    args.add_argument("--seed", type=int, default=20240229)
    args = args.parse_args()
    lines = corpus(args.seed, int(args.megabytes * 1e6))
    size = sum(len(l.encode()) for l in lines)
    for name in FAMILIES:
        tok = (build_pieces if name == "gemma" else build)(name, lines, args.vocab)
        out = args.out / name
        out.mkdir(parents=True, exist_ok=True)
        (out / "tokenizer.json").write_text(tok.to_str(), encoding="utf-8")
        (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
        started = time.perf_counter()
        encodings = tok.encode_batch(lines, add_special_tokens=True)
        took = time.perf_counter() - started
        with open(out / "cases.bin", "wb") as f:
            for line, encoding in zip(lines, encodings):
                text, decoded = line.encode(), tok.decode(encoding.ids, skip_special_tokens=False).encode()
                f.write(struct.pack("<I", len(text)) + text)
                f.write(struct.pack(f"<I{len(encoding.ids)}I", len(encoding.ids), *encoding.ids))
                f.write(struct.pack("<I", len(decoded)) + decoded)
        print(f"{name}: {len(lines)} texts, {size} bytes, {sum(len(e.ids) for e in encodings)} ids, reference {size / took / 1e6:.1f} MB/s")
    (args.out / "done").write_text("all families are written\n")


if __name__ == "__main__":
    main()
