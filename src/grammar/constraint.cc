#include "grammar/constraint.h"

#include "grammar/grammar_text.h"
#include "grammar/harmony.h"
#include "grammar/limits.h"
#include "grammar/schema.h"
#include "grammar/structural_tag.h"

namespace baton::grammar {
namespace {

Result<> bounded(const Json& schema) {
  if (schema.end - schema.begin <= kSourceBytesMax) return {};
  return fail(Code::kInvalidArgument, "the schema is longer than ", kSourceBytesMax, " bytes");
}

Result<ExprId> arguments_of(JsonRules& json, const Tool& tool) {
  if (tool.parameters.is_null()) return json.object();
  BATON_OK(bounded(tool.parameters));
  auto written = schema(json, tool.parameters);
  if (!written) return std::unexpected(within(cat("tool \"", tool.name, "\""), std::move(written).error()));
  return written;
}

Result<ExprId> own_call(JsonRules& json, const Constraint& c) {
  std::vector<HarmonyCall> ways;
  for (const Tool& tool : c.tools) {
    BATON_TRY(const ExprId arguments, arguments_of(json, tool));
    ways.push_back({tool.name, arguments});
  }
  return harmony_call(json.rules(), ways);
}

Result<ExprId> calls(JsonRules& json, const Constraint& c) {
  Rules& r = json.rules();
  std::vector<ExprId> ways;
  for (const Tool& tool : c.tools) {
    BATON_TRY(const ExprId arguments, arguments_of(json, tool));
    const ExprId members = r.seq({json.quoted("name"), json.colon(), json.quoted(tool.name), json.comma(),
                                  json.quoted("parameters"), json.colon(), arguments});
    ways.push_back(json.braces('{', members, '}', false));
  }
  const ExprId call = r.rule("call", r.alt(std::move(ways)));
  const ExprId more = r.repeat(r.seq({json.comma(), call}), 0, c.one_call ? 0 : kNoEnd);
  return json.braces('[', r.seq({call, more}), ']', false);
}

Result<ExprId> json_start(JsonRules& json, const Constraint& c) {
  switch (c.kind) {
    case Constraint::Kind::kSchema:
      BATON_OK(bounded(c.schema));
      return schema(json, c.schema);
    case Constraint::Kind::kStructuralTag:
      BATON_OK(bounded(c.schema));
      return structural_tag(json, c.schema);
    case Constraint::Kind::kCalls:
      return c.harmony ? own_call(json, c) : calls(json, c);
    case Constraint::Kind::kArguments:
      return c.harmony ? own_call(json, c) : arguments_of(json, c.tools.at(0));
    default:
      return json.object();
  }
}

}  // namespace

std::string cache_key(const Constraint& c) {
  JsonWriter w;
  w.array().value(static_cast<int>(c.kind)).value(c.style.any_whitespace).value(c.one_call).value(c.harmony);
  if (c.style.whitespace_pattern) w.value(*c.style.whitespace_pattern);
  w.raw(json_text(c.schema)).value(c.text).array();
  for (const std::string& choice : c.choices) w.value(choice);
  w.end().array();
  for (const Tool& tool : c.tools) w.value(tool.name).raw(json_text(tool.parameters));
  return w.end().end().take();
}

Result<Rules> rules_of(const Constraint& c) {
  using Kind = Constraint::Kind;
  Rules rules;
  const auto begin_with = [&](ExprId expr) {
    const bool json = c.kind == Kind::kSchema || c.kind == Kind::kJsonObject;
    if (c.harmony && c.kind != Kind::kCalls && c.kind != Kind::kArguments) expr = harmony_final(rules, expr, json);
    rules.define(rules.start = rules.add("start"), expr);
  };
  switch (c.kind) {
    case Constraint::Kind::kRegex: {
      BATON_TRY(const ExprId expr, regex(rules, c.text));
      begin_with(expr);
      return rules;
    }
    case Constraint::Kind::kChoice: {
      std::vector<ExprId> ways;
      size_t bytes = 0;
      for (const std::string& choice : c.choices) {
        if (choice.empty()) return fail(Code::kInvalidArgument, "a choice must not be empty");
        bytes += choice.size();
        if (bytes > kSourceBytesMax)
          return fail(Code::kInvalidArgument, "the choices are longer than ", kSourceBytesMax, " bytes");
        ways.push_back(rules.bytes(choice));
      }
      begin_with(rules.alt(std::move(ways)));
      return rules;
    }
    case Constraint::Kind::kGrammar:
      BATON_OK(grammar_text(rules, c.text));
      if (c.harmony) begin_with(rules.call(rules.start));
      return rules;
    default: {
      BATON_TRY(JsonRules json, JsonRules::make(rules, c.style));
      BATON_TRY(const ExprId expr, json_start(json, c));
      begin_with(expr);
      return rules;
    }
  }
}

Result<std::shared_ptr<const Compiled>> compile(const Constraint& constraint, std::shared_ptr<const Vocabulary> vocabulary) {
  BATON_TRY(const Rules rules, rules_of(constraint));
  return Compiled::make(rules, std::move(vocabulary));
}

}  // namespace baton::grammar
