#include "wire/structured_output.h"

#include "wire/fields.h"
#include "wire/limits.h"

namespace baton::wire {
namespace {

using Kind = StructuredOutput::Kind;

// The constraints found, by the names they were sent under.
struct Found {
  StructuredOutput output;
  std::vector<std::string> names;
  void add(Kind kind, std::string_view name) {
    output.kind = kind;
    names.emplace_back(name);
  }
};

// A schema or a structural tag as an object, or written in a string.
void read_object(Fields& f, const Json& value, Kind kind, std::string_view name, Found& found) {
  found.add(kind, name);
  if (value.is_string()) {
    auto parsed = parse_json(value.text, kRequestJson);
    if (!parsed) return f.reject(At{name}, "Invalid JSON: ", parsed.error().message);
    found.output.schema = *std::move(parsed);
  } else {
    found.output.schema = value;
  }
  f.require(found.output.schema.is_object() || (kind == Kind::kSchema && found.output.schema.is_bool()), At{name},
            "Input should be a valid dictionary or string");
}

void read_text(Fields& f, Fields& object, std::string_view key, Kind kind, std::string_view name, Found& found) {
  if (!object.has(key)) return;
  found.add(kind, name);
  object.text(key, found.output.text, kConstraintBytesMax);
  if (object.error()) f.reject(*object.error());
}

void read_choices(Fields& f, Fields& object, std::string_view key, std::string_view name, Found& found) {
  const Json* value = object.get(key);
  if (!value) return;
  found.add(Kind::kChoice, name);
  f.require(value->is_array(), At{name}, "Input should be a valid list");
  f.require(!value->items.empty(), At{name}, "List should have at least 1 item after validation, not 0");
  if (f.error()) return;
  object.texts(key, found.output.choices, kChoiceTextsMax, kConstraintBytesMax);
  if (object.error()) f.reject(*object.error());
}

void read_response_format(Fields& f, Found& found) {
  const Json* format = f.get("response_format");
  if (!format) return;
  const Json* type = format->find("type");
  const std::string_view name = type ? type->as_string().value_or("") : "";
  f.require(name == "text" || name == "json_object" || name == "json_schema" || name == "structural_tag",
            At{"response_format.type"}, "Input should be 'text', 'json_object', 'json_schema' or 'structural_tag'");
  if (f.error() || name == "text") return;
  if (name == "structural_tag") return read_object(f, *format, Kind::kStructuralTag, "response_format", found);
  if (name == "json_object") return found.add(Kind::kJsonObject, "response_format");
  const Json* object = format->find("json_schema");
  f.require(object && !object->is_null(), About{"response_format"},
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.");
  f.require(f.error() || object->is_object(), At{"response_format.json_schema"}, "Input should be a valid dictionary");
  if (f.error()) return;
  const Json* label = object->find("name");
  f.require(label && label->is_string(), At{"response_format.json_schema.name"}, "Field required");
  const Json* schema = object->find("schema");
  if (!schema || schema->is_null()) return found.add(Kind::kJsonObject, "response_format");  // any, as OpenAI has it
  read_object(f, *schema, Kind::kSchema, "response_format.json_schema.schema", found);
}

void read_structured(Fields& f, Found& found) {
  const Json* value = f.get("structured_outputs");
  if (!value) return;
  f.require(value->is_object(), At{"structured_outputs"}, "Input should be a valid dictionary");
  if (f.error()) return;
  Fields o(*value, "structured_outputs");
  const size_t before = found.names.size();
  if (const Json* schema = o.get("json")) read_object(f, *schema, Kind::kSchema, "structured_outputs.json", found);
  if (const Json* tag = o.get("structural_tag"))
    read_object(f, *tag, Kind::kStructuralTag, "structured_outputs.structural_tag", found);
  read_text(f, o, "regex", Kind::kRegex, "structured_outputs.regex", found);
  read_choices(f, o, "choice", "structured_outputs.choice", found);
  read_text(f, o, "grammar", Kind::kGrammar, "structured_outputs.grammar", found);
  bool object = false, compact = false;
  o.flag("json_object", object);
  if (object) found.add(Kind::kJsonObject, "structured_outputs.json_object");
  o.flag("disable_any_whitespace", compact);
  found.output.any_whitespace &= !compact;
  if (o.has("whitespace_pattern")) o.text("whitespace_pattern", found.output.whitespace_pattern.emplace(), kConstraintBytesMax);
  if (o.error()) return f.reject(*o.error());
  f.require(found.names.size() > before, "You must use one kind of structured outputs constraint but none are specified.");
}

void read_guided(Fields& f, Found& found) {
  if (const Json* schema = f.get("guided_json")) read_object(f, *schema, Kind::kSchema, "guided_json", found);
  read_text(f, f, "guided_regex", Kind::kRegex, "guided_regex", found);
  read_choices(f, f, "guided_choice", "guided_choice", found);
  read_text(f, f, "guided_grammar", Kind::kGrammar, "guided_grammar", found);
  if (f.has("guided_whitespace_pattern"))
    f.text("guided_whitespace_pattern", found.output.whitespace_pattern.emplace(), kConstraintBytesMax);
  f.known({"guided_decoding_backend"});
}

}  // namespace

void read_structured_output(Fields& f, std::optional<StructuredOutput>& out) {
  Found found;
  read_response_format(f, found);
  read_structured(f, found);
  read_guided(f, found);
  if (f.error() || found.names.empty()) return;
  std::string all;
  for (const std::string& name : found.names) all += cat(all.empty() ? "" : ", ", name);
  f.require(found.names.size() == 1, About{"structured_outputs"},
            "You can only use one kind of structured outputs constraint but multiple are specified: ", all);
  out = std::move(found.output);
}

}  // namespace baton::wire
