"""Fifty prompts of 8 to 1,500 tokens: several languages, code, numbers, whitespace. Made, not stored: the same text every time."""

SENTENCES = [
    "The ferry left the island before dawn, carrying letters, oranges and one very patient dog.",
    "Prefill reads the prompt once; decode writes the answer one token at a time.",
    "Die Brücke wurde im Jahr 1887 gebaut und seitdem dreimal erneuert.",
    "Le chat dort sous la table pendant que la pluie tombe sur les toits de Lyon.",
    "El tren de las ocho llega tarde cuando nieva en la sierra.",
    "Сегодня утром в парке было тихо, только вороны спорили о чём-то важном.",
    "今天下午我们在图书馆讨论了分布式系统的设计。",
    "窓の外では、子どもたちが雪だるまを作っていた。",
    "في الصباح الباكر فتح البائع دكانه ورتب الفواكه بعناية.",
    "आज बाज़ार में ताज़ी सब्ज़ियाँ और मीठे आम मिल रहे थे।",
    "def area(r):\n    return 3.14159 * r ** 2  # square units\n",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }",
    "SELECT name, COUNT(*) FROM orders WHERE total > 99.5 GROUP BY name;",
    "In 2024 the town had 18,432 inhabitants, 3 bakeries and 1 cinema.",
    "  Indented text,\twith tabs,   and   wide   gaps.\n\n\nThen a new paragraph.",
    "Cost: $1,299.00 (incl. 19% VAT) — \"not bad\", she said… 🙂🚀",
]
QUESTIONS = ["What happens next?", "Summarise this in one line.", "Translate the last sentence.", "Why does it matter?", "Continue:"]

# Sentences per prompt: about 8 to 1,500 tokens (a sentence is about 25).
LENGTHS = [0] * 8 + [1] * 8 + [2] * 8 + [4] * 8 + [8] * 8 + [14] * 4 + [24] * 3 + [36] * 2 + [41]


def prompts():
    out = []
    for i, n in enumerate(LENGTHS):
        body = " ".join(SENTENCES[(i * 7 + k * 5 + k * k) % len(SENTENCES)] for k in range(n))
        out.append(f"[{i}] {body} {QUESTIONS[i % len(QUESTIONS)]}".replace("  Ind", " Ind"))
    return out
