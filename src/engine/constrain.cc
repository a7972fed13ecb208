#include "engine/constrain.h"

#include <algorithm>

#include "engine/limits.h"
#include "grammar/harmony.h"

namespace baton::engine {

bool Constraints::harmony() const {
  return std::ranges::all_of(grammar::kHarmonyTokens, [&](std::string_view token) {
    const int32_t id = tokenizer_.id_of(token);
    return id >= 0 && id < vocab_ && tokenizer_.is_special(id);
  });
}

std::shared_ptr<const grammar::Vocabulary> Constraints::vocabulary(bool harmony) {
  std::call_once(once_[harmony], [&] {
    const int32_t known = tokenizer_.vocab_size();
    std::unordered_map<int32_t, std::string> special;
    for (size_t i = 0; harmony && i < std::size(grammar::kHarmonyTokens); ++i) {
      const std::string_view token = grammar::kHarmonyTokens[i];
      special.emplace(tokenizer_.id_of(token), grammar::special_bytes(token));
    }
    const auto bytes_of = [&](int32_t id) {
      if (const auto it = special.find(id); it != special.end()) return std::string_view(it->second);
      return id >= known || tokenizer_.is_special(id) ? std::string_view() : tokenizer_.token_bytes(id);
    };
    vocabulary_[harmony] = std::make_shared<const grammar::Vocabulary>(vocab_, bytes_of, tokenizer_.strips_first_space());
  });
  return vocabulary_[harmony];
}

Result<Constraint> Constraints::get(const grammar::Constraint& wanted) {
  std::string key = grammar::cache_key(wanted);
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = by_key_.find(key); it != by_key_.end()) {
      recent_.splice(recent_.begin(), recent_, it->second);
      return recent_.front().compiled;
    }
  }
  // Two that ask for the same at once both do the work; nobody waits for another's.
  BATON_TRY(Constraint compiled, grammar::compile(wanted, vocabulary(wanted.harmony)));
  const size_t bytes = key.size() + compiled->bytes_used();
  const std::lock_guard lock(mutex_);
  if (bytes > kConstraintsBytesMax || by_key_.contains(key)) return compiled;
  recent_.push_front({std::move(key), compiled, bytes});
  by_key_.emplace(recent_.front().key, recent_.begin());
  for (bytes_ += bytes; bytes_ > kConstraintsBytesMax || recent_.size() > kConstraintsMax; recent_.pop_back()) {
    bytes_ -= recent_.back().bytes;
    by_key_.erase(recent_.back().key);
  }
  return compiled;
}

std::optional<grammar::Constraint> constraint_of(const wire::GenerateFields& fields) {
  if (!fields.structured) return std::nullopt;
  using From = wire::StructuredOutput::Kind;
  using To = grammar::Constraint::Kind;
  const wire::StructuredOutput& s = *fields.structured;
  grammar::Constraint out{.schema = s.schema, .text = s.text, .choices = s.choices};
  out.style = {.any_whitespace = s.any_whitespace, .whitespace_pattern = s.whitespace_pattern};
  switch (s.kind) {
    case From::kSchema:
      out.kind = To::kSchema;
      break;
    case From::kJsonObject:
      out.kind = To::kJsonObject;
      break;
    case From::kRegex:
      out.kind = To::kRegex;
      break;
    case From::kChoice:
      out.kind = To::kChoice;
      break;
    case From::kGrammar:
      out.kind = To::kGrammar;
      break;
    case From::kStructuralTag:
      out.kind = To::kStructuralTag;
      break;
  }
  return out;
}

std::optional<grammar::Constraint> constraint_of(const wire::ChatRequest& r) {
  using Kind = grammar::Constraint::Kind;
  const bool required = r.tool_choice == wire::ToolChoice::kRequired;
  if (!required && r.tool_choice != wire::ToolChoice::kNamed) return constraint_of(static_cast<const wire::GenerateFields&>(r));
  grammar::Constraint out{.kind = required ? Kind::kCalls : Kind::kArguments, .one_call = !r.parallel_tool_calls};
  for (const Json& tool : r.tools.items) {
    const Json& function = *tool.find("function");
    const std::string& name = function.find("name")->text;
    if (!required && name != r.named_tool) continue;
    const Json* parameters = function.find("parameters");
    out.tools.push_back({name, parameters ? *parameters : Json{}});
    if (!required) break;
  }
  return out;
}

grammar::Begin begin_of(const parse::MessageFormat& format) {
  using When = grammar::Begin::When;
  using Start = parse::Reasoning::Start;
  if (!format.reasoning || *format.reasoning == Start::kContent) return {};
  return {.when = *format.reasoning == Start::kThinking ? When::kAfterTag : When::kAfterTagIfOpened,
          .open = std::string(format.tags.open),
          .close = std::string(format.tags.close)};
}

}  // namespace baton::engine
