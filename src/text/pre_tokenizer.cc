#include "text/pre_tokenizer.h"

#include <algorithm>

#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

struct Segment {
  Span span;
  bool match;
};

// The text as alternating gaps and matches, none empty.
std::vector<Segment> segments_of(const std::vector<Span>& matches, size_t size, bool invert) {
  std::vector<Segment> out;
  size_t at = 0;
  for (Span m : matches) {
    if (m.begin > at) out.push_back({{at, m.begin}, invert});
    out.push_back({m, !invert});
    at = m.end;
  }
  if (size > at) out.push_back({{at, size}, invert});
  return out;
}

bool flag(const Json& spec, std::string_view key, bool otherwise) {
  const Json* v = spec.find(key);
  return v == nullptr ? otherwise : v->as_bool().value_or(otherwise);
}

std::string_view text_field(const Json& spec, std::string_view key) {
  const Json* v = spec.find(key);
  return v == nullptr ? std::string_view() : v->as_string().value_or("");
}

// Patterns of families that need no scanner of their own yet; matched by PCRE2. Source: facts sheet "engine" 4.2 and the
// tokenizer.json files of Mistral Nemo and DeepSeek V3.
constexpr std::string_view kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
                                     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
                                     R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeekV3[] = {
    R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)"};

}  // namespace

Result<PreTokenizer> PreTokenizer::from_json(const Json& spec) {
  PreTokenizer p;
  if (!spec.is_null()) BATON_OK(p.add(spec));
  return p;
}

Result<PreTokenizer> PreTokenizer::from_gguf(std::string_view pre) {
  static constexpr std::pair<std::string_view, ScanRule> kScanned[] = {
      {"llama-bpe", ScanRule::kLlama3},  {"llama3", ScanRule::kLlama3},    {"llama-v3", ScanRule::kLlama3},
      {"smaug-bpe", ScanRule::kLlama3},  {"dbrx", ScanRule::kLlama3},  // SmolLM3; Phi-4
      {"falcon3", ScanRule::kLlama3},    {"qwen2", ScanRule::kQwen2},      {"deepseek-r1-qwen", ScanRule::kQwen2},
      {"stablelm2", ScanRule::kQwen2},   {"hunyuan", ScanRule::kQwen2},    {"megrez", ScanRule::kQwen2},
      {"smollm", ScanRule::kDigits},     {"starcoder", ScanRule::kDigits}, {"refact", ScanRule::kDigits},
      {"command-r", ScanRule::kDigits},  {"codeshell", ScanRule::kDigits}, {"exaone", ScanRule::kDigits},
      {"minerva-7b", ScanRule::kDigits}, {"gpt-2", ScanRule::kGpt2},       {"mpt", ScanRule::kGpt2},
      {"olmo", ScanRule::kGpt2},         {"jais", ScanRule::kGpt2},        {"trillion", ScanRule::kGpt2}};
  PreTokenizer p;
  p.byte_level_ = true;
  for (auto& [name, rule] : kScanned) {
    if (pre != name) continue;
    p.stages_.push_back(rule);
    if (rule == ScanRule::kDigits) p.stages_.push_back(ScanRule::kGpt2);
    return p;
  }
  if (pre == "tekken" || pre == "gpt-4o") {
    BATON_OK(p.add_regex(pre == "tekken" ? kTekken : kO200k, Behavior::kIsolated));
    return p;
  }
  if (pre == "deepseek-v3") {
    for (std::string_view pattern : kDeepSeekV3) BATON_OK(p.add_regex(pattern, Behavior::kIsolated));
    return p;
  }
  std::string known = "tekken, gpt-4o, deepseek-v3";
  for (auto& [name, rule] : kScanned) known += cat(", ", name);
  return fail(Code::kUnimplemented, "tokenizer.ggml.pre is ", json_string(pre),
              ", a pre-tokenizer this build does not know (it knows ", known,
              "); guessing would give wrong token ids, so use the model's Hugging Face directory with tokenizer.json instead");
}

Result<PreTokenizer::Behavior> PreTokenizer::behavior_named(std::string_view name) {
  static constexpr std::pair<std::string_view, Behavior> kNames[] = {{"Removed", Behavior::kRemoved},
                                                                     {"Isolated", Behavior::kIsolated},
                                                                     {"MergedWithPrevious", Behavior::kMergedWithPrevious},
                                                                     {"MergedWithNext", Behavior::kMergedWithNext},
                                                                     {"Contiguous", Behavior::kContiguous}};
  for (auto& [n, b] : kNames) {
    if (n == name) return b;
  }
  return fail(Code::kUnimplemented, "pre-tokenizer behavior ", json_string(name), " is not supported");
}

Result<> PreTokenizer::add_regex(std::string_view pattern, Behavior behavior, bool invert) {
  // The known rules match every character, so isolating the matches and removing what is between them are the same.
  if (std::optional<ScanRule> rule = known_regex(pattern);
      rule && ((behavior == Behavior::kIsolated && !invert) || (behavior == Behavior::kRemoved && invert))) {
    stages_.push_back(*rule);
    return {};
  }
  BATON_TRY(Regex regex, Regex::compile(pattern));
  stages_.push_back(RegexSplit{std::move(regex), behavior, invert});
  return {};
}

Result<> PreTokenizer::add(const Json& spec) {
  if (stages_.size() >= kPipelineStagesMax)
    return fail(Code::kResourceExhausted, "more than ", kPipelineStagesMax, " pre-tokenizers");
  if (byte_level_) return fail(Code::kUnimplemented, "a pre-tokenizer after ByteLevel is not supported");
  std::string_view type = text_field(spec, "type");
  if (type == "Sequence") {
    const Json* list = spec.find("pretokenizers");
    if (list == nullptr || !list->is_array())
      return fail(Code::kInvalidArgument, "pre-tokenizer Sequence needs \"pretokenizers\"");
    for (const Json& item : list->items) BATON_OK(add(item));
    return {};
  }
  if (type == "Split") return add_split(spec);
  if (type == "ByteLevel") return add_byte_level(spec);
  if (type == "Metaspace") return add_metaspace(spec);
  if (type == "Digits") {
    if (!flag(spec, "individual_digits", false)) return add_regex(R"(\p{N}+)", Behavior::kIsolated);
    stages_.push_back(ScanRule::kDigits);
    return {};
  }
  if (type == "Punctuation") {
    std::string_view name = text_field(spec, "behavior");
    BATON_TRY(Behavior behavior, behavior_named(name.empty() ? "Isolated" : name));
    return add_regex(R"([\p{P}!-/:-@\[-`{-~])", behavior);
  }
  if (type == "Whitespace") return add_regex(R"(\w+|[^\w\s]+)", Behavior::kRemoved, true);
  if (type == "WhitespaceSplit") return add_regex(R"(\s)", Behavior::kRemoved);
  return fail(Code::kUnimplemented, "pre-tokenizer ", json_string(type), " is not supported");
}

Result<> PreTokenizer::add_split(const Json& spec) {
  BATON_TRY(Behavior behavior, behavior_named(text_field(spec, "behavior")));
  bool invert = flag(spec, "invert", false);
  if (const Json* r = spec.find_path({"pattern", "Regex"}); r != nullptr && r->is_string())
    return add_regex(r->text, behavior, invert);
  const Json* s = spec.find_path({"pattern", "String"});
  if (s == nullptr || !s->is_string()) {
    return fail(Code::kInvalidArgument, "pre-tokenizer Split needs a pattern {\"Regex\": ..} or {\"String\": ..}");
  }
  BATON_TRY(Regex regex, Regex::literal(s->text));
  stages_.push_back(RegexSplit{std::move(regex), behavior, invert});
  return {};
}

Result<> PreTokenizer::add_byte_level(const Json& spec) {
  if (flag(spec, "add_prefix_space", true)) stages_.push_back(PrefixSpace{});
  if (flag(spec, "use_regex", true)) stages_.push_back(ScanRule::kGpt2);
  byte_level_ = true;
  return {};
}

Result<> PreTokenizer::add_metaspace(const Json& spec) {
  Metaspace m{"▁", Metaspace::Prepend::kAlways, flag(spec, "split", true)};
  if (std::string_view r = text_field(spec, "replacement"); !r.empty()) m.replacement = r;
  std::string_view scheme = text_field(spec, "prepend_scheme");
  if (scheme.empty()) scheme = flag(spec, "add_prefix_space", true) ? "always" : "never";  // files older than the scheme
  if (scheme == "never") {
    m.prepend = Metaspace::Prepend::kNever;
  } else if (scheme == "first") {
    m.prepend = Metaspace::Prepend::kFirst;
  } else if (scheme != "always") {
    return fail(Code::kUnimplemented, "Metaspace prepend_scheme ", json_string(scheme), " is not supported");
  }
  stages_.push_back(std::move(m));
  return {};
}

Result<> PreTokenizer::run(const RegexSplit& stage, std::string_view word, Words& out) {
  BATON_TRY(std::vector<Span> matches, stage.regex.find_all(word));
  std::vector<Segment> parts = segments_of(matches, word.size(), stage.invert);
  std::vector<Span> spans;
  for (size_t i = 0; i < parts.size(); ++i) {
    auto [span, match] = parts[i];
    bool join = false;
    switch (stage.behavior) {
      case Behavior::kRemoved:
        if (match) continue;
        break;
      case Behavior::kIsolated:
        break;
      case Behavior::kMergedWithPrevious:
        join = match && i > 0 && !parts[i - 1].match;
        break;
      case Behavior::kMergedWithNext:
        join = !match && i > 0 && parts[i - 1].match;
        break;
      case Behavior::kContiguous:
        join = i > 0 && parts[i - 1].match == match;
        break;
    }
    if (join) {
      spans.back().end = span.end;
    } else {
      spans.push_back(span);
    }
  }
  for (Span s : spans) out.scratch.push_back(word.substr(s.begin, s.end - s.begin));
  return {};
}

Result<> PreTokenizer::run(const Stage& stage, std::string_view word, bool first, Words& out) {
  if (auto* rule = std::get_if<ScanRule>(&stage)) {
    scan(*rule, word, out.scratch);
    return {};
  }
  if (auto* regex = std::get_if<RegexSplit>(&stage)) return run(*regex, word, out);
  if (std::holds_alternative<PrefixSpace>(stage)) {
    if (!word.starts_with(' ')) word = out.storage.emplace_back(cat(' ', word));
    out.scratch.push_back(word);
    return {};
  }
  const auto& meta = std::get<Metaspace>(stage);
  std::string& text = out.storage.emplace_back();
  for (char c : word) {
    if (c == ' ') {
      text += meta.replacement;
    } else {
      text += c;
    }
  }
  bool prepend = meta.prepend == Metaspace::Prepend::kAlways || (meta.prepend == Metaspace::Prepend::kFirst && first);
  if (prepend && !text.starts_with(meta.replacement)) text.insert(0, meta.replacement);
  std::string_view rest = text;
  while (meta.split && !rest.empty()) {  // each replacement starts a word
    size_t next =
        rest.find(meta.replacement, std::min(rest.size(), rest.starts_with(meta.replacement) ? meta.replacement.size() : 0));
    if (next == std::string_view::npos) break;
    out.scratch.push_back(rest.substr(0, next));
    rest.remove_prefix(next);
  }
  if (!rest.empty()) out.scratch.push_back(rest);
  return {};
}

Result<> PreTokenizer::split(std::string_view text, bool first, Words& out) const {
  out.words.clear();
  out.storage.clear();
  if (text.empty()) return {};
  out.words.push_back(text);
  for (const Stage& stage : stages_) {
    out.scratch.clear();
    for (std::string_view word : out.words) BATON_OK(run(stage, word, first && word.data() == text.data(), out));
    std::swap(out.words, out.scratch);
  }
  return {};
}

}  // namespace baton::text
