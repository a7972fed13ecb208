#include "grammar/structural_tag.h"

#include <algorithm>
#include <utility>

#include "grammar/grammar_text.h"
#include "grammar/limits.h"
#include "grammar/schema.h"

namespace baton::grammar {
namespace {

template <class... Args>
std::unexpected<Error> wrong(const Args&... args) {
  return fail(Code::kInvalidArgument, "structural tag: ", args...);
}

using Strings = std::vector<std::string>;

class Reader {
 public:
  explicit Reader(JsonRules& json) : json_(json), rules_(json.rules()) {}

  Result<ExprId> whole(const Json& tag) {
    if (tag.find("structures") != nullptr) return structures(tag);
    const Json* inside = tag.find("format");
    if (inside == nullptr) return wrong("it has neither \"format\" nor \"structures\"");
    return format(*inside, {}, 0);
  }

 private:
  // One format. ends: what stands behind it, where that is a tag's end: free text stops before it.
  Result<ExprId> format(const Json& f, const Strings& ends, int depth);
  Result<ExprId> structures(const Json& tag);
  Result<ExprId> json_schema(const Json& f);
  Result<ExprId> grammar(const Json& f);
  Result<ExprId> sequence(const Json& f, const Strings& ends, int depth);
  Result<ExprId> either(const Json& f, const Strings& ends, int depth);
  Result<ExprId> repeat(const Json& f, int32_t min, int32_t max, int depth);
  Result<ExprId> counted(const Json& f, int depth);
  Result<ExprId> any_text(const Json& f, const Strings& ends);
  Result<ExprId> tag(const Json& f, std::string_view begun, int depth);
  Result<ExprId> triggered_tags(const Json& f, const Strings& ends, int depth);
  Result<ExprId> tags_with_separator(const Json& f, int depth);
  Result<std::vector<ExprId>> tags(const Json& f, int depth);
  Result<std::vector<FreeMark>> dispatch(const Json& f, int depth);
  Result<ExprId> free(std::vector<FreeMark> marks, const Json& f, const Strings& ends, bool once);

  Result<std::string> text(const Json& f, std::string_view key) {
    const Json* value = f.find(key);
    if (value == nullptr || !value->is_string()) return wrong("\"", key, "\" must be a string");
    return value->text;
  }
  Result<Strings> texts(const Json& f, std::string_view key, bool needed) {
    const Json* value = f.find(key);
    if (value == nullptr && !needed) return Strings{};
    if (value != nullptr && value->is_string() && key == "end") return Strings{value->text};
    const bool list = value != nullptr && value->is_array() && std::ranges::all_of(value->items, &Json::is_string);
    if (!list || (needed && value->items.empty())) return wrong("\"", key, "\" must be a list of strings");
    Strings out;
    for (const Json& item : value->items) out.push_back(item.text);
    return out;
  }
  Result<const std::vector<Json>*> list(const Json& f, std::string_view key) {
    const Json* value = f.find(key);
    if (value == nullptr || !value->is_array() || value->items.empty())
      return wrong("\"", key, "\" must be a list that is not empty");
    return &value->items;
  }
  Result<bool> flag(const Json& f, std::string_view key) {
    const Json* value = f.find(key);
    if (value == nullptr) return false;
    if (!value->is_bool()) return wrong("\"", key, "\" must be true or false");
    return value->boolean;
  }
  Result<int32_t> count(const Json& f, std::string_view key) {
    const Json* value = f.find(key);
    const auto n = value != nullptr ? value->as_int() : std::nullopt;
    if (!n || *n < -1 || *n > kRepeatMax) return wrong("\"", key, "\" must be a number up to ", kRepeatMax);
    return static_cast<int32_t>(*n);
  }
  ExprId one_of(const Strings& strings) {
    std::vector<ExprId> ways;
    for (const std::string& s : strings) ways.push_back(rules_.bytes(s));
    return rules_.alt(std::move(ways));
  }

  JsonRules& json_;
  Rules& rules_;
};

Result<ExprId> Reader::format(const Json& f, const Strings& ends, int depth) {
  if (depth > kNestingMax) return wrong("more than ", kNestingMax, " formats in each other");
  if (!f.is_object()) return wrong("a format must be an object");
  BATON_TRY(const std::string type, text(f, "type"));
  if (type == "const_string") {
    BATON_TRY(const std::string value, text(f, "value"));
    return rules_.bytes(value);
  }
  if (type == "regex") {
    BATON_TRY(const std::string pattern, text(f, "pattern"));
    return regex(rules_, pattern);
  }
  if (type == "json_schema") return json_schema(f);
  if (type == "grammar") return grammar(f);
  if (type == "any_text") return any_text(f, ends);
  if (type == "sequence") return sequence(f, ends, depth);
  if (type == "or") return either(f, ends, depth);
  if (type == "optional") return repeat(f, 0, 1, depth);
  if (type == "plus") return repeat(f, 1, kNoEnd, depth);
  if (type == "star") return repeat(f, 0, kNoEnd, depth);
  if (type == "repeat") return counted(f, depth);
  if (type == "tag") return tag(f, "", depth);
  if (type == "triggered_tags") return triggered_tags(f, ends, depth);
  if (type == "tags_with_separator") return tags_with_separator(f, depth);
  return wrong("format type \"", type, "\" is not supported");
}

// The older form: tags with schemas in free text.
Result<ExprId> Reader::structures(const Json& outer) {
  Json f = outer;
  BATON_TRY(const std::vector<Json>* all, list(outer, "structures"));
  Json tags, type;
  tags.kind = Json::Kind::kArray, type.kind = Json::Kind::kString, type.text = "json_schema";
  for (const Json& structure : *all) {
    const Json* schema = structure.find("schema");
    if (schema == nullptr) return wrong("a structure has no \"schema\"");
    Json content;
    content.kind = Json::Kind::kObject, content.keys = {"type", "json_schema"}, content.items = {type, *schema};
    tags.items.push_back(structure);
    tags.items.back().set("content", std::move(content));
  }
  f.set("tags", std::move(tags));
  return triggered_tags(f, {}, 0);
}

Result<ExprId> Reader::json_schema(const Json& f) {
  if (const Json* style = f.find("style"); style != nullptr && style->text != "json")
    return wrong("style \"", style->text, "\" of a json_schema is not supported");
  BATON_TRY(const bool any_order, flag(f, "any_order"));
  if (any_order) return wrong("\"any_order\" of a json_schema is not supported");
  const Json* wanted = f.find("json_schema");
  if (wanted == nullptr) return wrong("a json_schema has no \"json_schema\"");
  if (!wanted->is_string()) return schema(json_, *wanted);
  BATON_TRY(const Json parsed, parse_json(wanted->text));
  return schema(json_, parsed);
}

Result<ExprId> Reader::grammar(const Json& f) {
  BATON_TRY(const std::string source, text(f, "grammar"));
  const RuleId start = rules_.start;
  BATON_OK(grammar_text(rules_, source));
  return rules_.call(std::exchange(rules_.start, start));
}

Result<ExprId> Reader::sequence(const Json& f, const Strings& ends, int depth) {
  BATON_TRY(const std::vector<Json>* elements, list(f, "elements"));
  std::vector<ExprId> parts;
  for (const Json& element : *elements) {
    const bool last = &element == &elements->back();
    BATON_TRY(const ExprId part, format(element, last ? ends : Strings{}, depth + 1));
    parts.push_back(part);
  }
  return rules_.seq(std::move(parts));
}

Result<ExprId> Reader::either(const Json& f, const Strings& ends, int depth) {
  BATON_TRY(const std::vector<Json>* elements, list(f, "elements"));
  std::vector<ExprId> ways;
  for (const Json& element : *elements) {
    BATON_TRY(const ExprId way, format(element, ends, depth + 1));
    ways.push_back(way);
  }
  return rules_.alt(std::move(ways));
}

Result<ExprId> Reader::repeat(const Json& f, int32_t min, int32_t max, int depth) {
  const Json* content = f.find("content");
  if (content == nullptr) return wrong("a repetition has no \"content\"");
  BATON_TRY(const ExprId inside, format(*content, {}, depth + 1));
  return rules_.repeat(inside, min, max);
}

Result<ExprId> Reader::counted(const Json& f, int depth) {
  BATON_TRY(const int32_t min, count(f, "min"));
  BATON_TRY(const int32_t max, count(f, "max"));
  if (min < 0 || (max != kNoEnd && max < min)) return wrong("\"min\" of a repeat must be between 0 and \"max\"");
  return repeat(f, min, max, depth);
}

// Any text but what ends it.
Result<ExprId> Reader::free(std::vector<FreeMark> marks, const Json& f, const Strings& ends, bool once) {
  BATON_TRY(Strings never, texts(f, "excludes", false));
  // An end of "" ends nothing: what follows is found by itself.
  if (std::ranges::find(ends, "") == ends.end()) never.insert(never.end(), ends.begin(), ends.end());
  size_t bytes = 0;
  for (const std::string& string : never) marks.push_back({.text = string});
  for (const FreeMark& mark : marks) {
    if (mark.text.empty()) return wrong("what free text waits for must not be empty");
    bytes += mark.text.size();
  }
  if (bytes > kMarksBytesMax) return wrong("what free text waits for is longer than ", kMarksBytesMax, " bytes");
  return rules_.free(std::move(marks), once);
}

Result<ExprId> Reader::any_text(const Json& f, const Strings& ends) {
  if (const Json* budget = f.find("max_tokens"); budget != nullptr && !budget->is_null())
    return wrong("\"max_tokens\" of an any_text is not supported");
  return free({}, f, ends, false);
}

// begun: the part of its beginning that is written already.
Result<ExprId> Reader::tag(const Json& f, std::string_view begun, int depth) {
  BATON_TRY(const std::string begin, text(f, "begin"));
  BATON_TRY(const Strings ends, texts(f, "end", true));
  const Json* content = f.find("content");
  if (content == nullptr) return wrong("a tag has no \"content\"");
  BATON_TRY(const ExprId inside, format(*content, ends, depth + 1));
  return rules_.seq({rules_.bytes(std::string_view(begin).substr(begun.size())), inside, one_of(ends)});
}

Result<std::vector<ExprId>> Reader::tags(const Json& f, int depth) {
  BATON_TRY(const std::vector<Json>* all, list(f, "tags"));
  std::vector<ExprId> out;
  for (const Json& one : *all) {
    BATON_TRY(const ExprId expr, tag(one, "", depth + 1));
    out.push_back(expr);
  }
  return out;
}

// Each trigger, and the rest of the tags that begin with it.
Result<std::vector<FreeMark>> Reader::dispatch(const Json& f, int depth) {
  BATON_TRY(const Strings triggers, texts(f, "triggers", true));
  BATON_TRY(const std::vector<Json>* all, list(f, "tags"));
  std::vector<std::vector<ExprId>> ways(triggers.size());
  for (const Json& one : *all) {
    BATON_TRY(const std::string begin, text(one, "begin"));
    const auto begins = [&](const std::string& trigger) { return begin.starts_with(trigger); };
    const auto found = std::ranges::find_if(triggers, begins);
    if (found == triggers.end()) return wrong("the tag \"", begin, "\" begins with none of the triggers");
    if (std::ranges::count_if(triggers, begins) > 1) return wrong("the tag \"", begin, "\" begins with several triggers");
    BATON_TRY(const ExprId rest, tag(one, *found, depth + 1));
    ways[static_cast<size_t>(found - triggers.begin())].push_back(rest);
  }
  std::vector<FreeMark> out;
  for (size_t i = 0; i < triggers.size(); ++i) {
    out.push_back({.text = triggers[i]});
    if (!ways[i].empty()) out.back().part = rules_.alt(std::move(ways[i]));
  }
  return out;
}

Result<ExprId> Reader::triggered_tags(const Json& f, const Strings& ends, int depth) {
  BATON_TRY(std::vector<FreeMark> marks, dispatch(f, depth));
  BATON_TRY(const bool at_least_one, flag(f, "at_least_one"));
  BATON_TRY(const bool once, flag(f, "stop_after_first"));
  if (!at_least_one) return free(std::move(marks), f, ends, once);
  // Then a tag comes first, before any free text.
  BATON_TRY(std::vector<ExprId> ways, tags(f, depth));
  const ExprId first = rules_.alt(std::move(ways));
  if (once) return first;
  BATON_TRY(const ExprId rest, free(std::move(marks), f, ends, false));
  return rules_.seq({first, rest});
}

Result<ExprId> Reader::tags_with_separator(const Json& f, int depth) {
  BATON_TRY(std::vector<ExprId> ways, tags(f, depth));
  BATON_TRY(const std::string separator, text(f, "separator"));
  BATON_TRY(const bool at_least_one, flag(f, "at_least_one"));
  BATON_TRY(const bool once, flag(f, "stop_after_first"));
  const ExprId one = rules_.alt(std::move(ways));
  const ExprId more = rules_.repeat(rules_.seq({rules_.bytes(separator), one}), 0, once ? 0 : kNoEnd);
  const ExprId list = rules_.seq({one, more});
  return at_least_one ? list : rules_.optional(list);
}

}  // namespace

Result<ExprId> structural_tag(JsonRules& json, const Json& tag) { return Reader(json).whole(tag); }

}  // namespace baton::grammar
