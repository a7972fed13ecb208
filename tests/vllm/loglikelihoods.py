"""loglikelihoods.py MODEL_DIR < pairs > answers: what a model in float32 (transformers) says of pairs of a context and its continuation, cut into tokens as
lm-evaluation-harness does. JSON: [[context, continuation]...] to [{"sum", "tokens", "greedy", "margin"}...]; margin: by how much the likeliest token leads where
it leads least, or by how much the chosen one falls behind most."""
import json, sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids
first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


def answer(context, continuation):
    if context:
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        whole, begin = encode(context + continuation), len(encode(context))
    else:
        whole, begin = [first] + encode(continuation), 1
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([whole])).logits[0], -1)
    total, greedy, margins = 0.0, True, []
    for i in range(begin, len(whole)):
        (best, second), row = torch.topk(rows[i - 1], 2).values, rows[i - 1]
        mine = row[whole[i]]
        total += mine.item()
        greedy = greedy and bool(mine == best)
        margins.append((best - second if mine == best else mine - best).item())
    return {"sum": total, "tokens": len(whole) - begin, "greedy": greedy, "margin": min(margins) if greedy else -min(margins)}


json.dump([answer(*pair) for pair in json.load(sys.stdin)], sys.stdout)
