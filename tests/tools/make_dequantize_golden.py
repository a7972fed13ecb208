#!/usr/bin/env python3
"""Writes tests/golden/dequantize.json: blocks of random bytes with sane scales, and their values by the gguf package.

  python3 -m venv /tmp/golden && /tmp/golden/bin/pip install gguf
  /tmp/golden/bin/python tests/tools/make_dequantize_golden.py

Needed only to regenerate the file; src/model/dequantize_test.cc reads it.
"""
import json
import pathlib

import gguf
import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "dequantize.json"
# type: offsets of its f16 fields
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "F16": None,
          "BF16": None, "F32": None, "MXFP4": []}


def main():
    random = np.random.default_rng(1)
    cases = []
    for name, scales in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = 2
        if scales is None:
            blocks = 32
            values = random.normal(size=blocks).astype(np.float32)
            raw = gguf.quants.quantize(values, kind) if name == "BF16" else values.astype({"F16": np.float16, "F32": np.float32}[name])
            raw = np.frombuffer(raw.tobytes(), np.uint8)
        else:
            raw = random.integers(0, 256, (blocks, size), dtype=np.uint8)
            for offset in scales:
                raw[:, offset:offset + 2] = np.frombuffer(random.normal(size=blocks).astype(np.float16).tobytes(), np.uint8).reshape(blocks, 2)
            if name == "MXFP4":  # its scale is a power of two in one byte
                raw[:, 0] = random.integers(112, 132, blocks)
            raw = raw.reshape(-1)
        typed = raw.view({"F32": np.float32, "F16": np.float16}.get(name, np.uint8))
        values = gguf.quants.dequantize(typed, kind).reshape(-1)
        assert len(values) == blocks * elements
        cases.append({"type": name, "bytes": raw.tobytes().hex(), "values": [float(np.format_float_positional(v, unique=True)) for v in values]})
    GOLDEN.write_text(json.dumps({"cases": cases}, separators=(",", ":")).replace("},{", "},\n{") + "\n")
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
