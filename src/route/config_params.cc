// A plugin's parameters: from the file into its struct, and back, by the row's fields.
#include <algorithm>
#include <charconv>

#include "route/config_parts.h"
#include "route/limits.h"

namespace baton::route {
namespace {

using Type = Field::Type;
using Labels = std::vector<std::pair<std::string, std::string>>;
constexpr size_t kListMax = 256;  // entries of a list or map in parameters

std::vector<std::string_view> split(std::string_view s, char by) {
  std::vector<std::string_view> out;
  for (size_t at = 0; at <= s.size();) {
    const size_t end = std::min(s.find(by, at), s.size());
    out.push_back(s.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

std::string alternatives(std::string_view choices) {
  std::string out(choices);
  for (size_t at = 0; (at = out.find('|', at)) != std::string::npos; at += 4) out.replace(at, 1, " or ");
  return out;
}

struct Binder {
  Messages& m;
  const Field& field;
  const Json& value;
  std::string path;
  void* to;

  template <class T>
  T& as() const {
    return *static_cast<T*>(to);
  }
  void wrong(std::string_view what) const {
    std::string got = value.is_string() || value.is_number() ? value.text.substr(0, 60) : std::string(value.kind_name());
    while (!valid_utf8(got)) got.pop_back();
    m.error(path, cat("must be ", what, ", not ", got));
  }
  // The single key's value as an object reader sees it, so that ranges are checked in one place.
  void choice() const {
    const auto names = split(field.choices, '|');
    const auto at = std::ranges::find(names, value.text);
    if (!value.is_string() || at == names.end()) return wrong(alternatives(field.choices));
    as<uint8_t>() = static_cast<uint8_t>(at - names.begin());
  }
  void integer() const {
    const auto n = value.as_int();
    if (!n || static_cast<double>(*n) < field.min || static_cast<double>(*n) > field.max) {
      return wrong(cat("an integer from ", static_cast<int64_t>(field.min), " to ", static_cast<int64_t>(field.max)));
    }
    as<int64_t>() = *n;
  }
  void number() const {
    const auto n = value.as_double();
    if (!n || *n < field.min || *n > field.max) return wrong(cat("a number from ", field.min, " to ", field.max));
    as<double>() = *n;
  }
  void text() const {
    if (!value.is_string() && !value.is_number()) return wrong("a text");
    const auto names = split(field.choices, '|');
    if (!field.choices.empty() && std::ranges::find(names, value.text) == names.end()) return wrong(alternatives(field.choices));
    as<std::string>() = value.text;
  }
  void duration(bool seconds) const {
    const auto n =
        value.is_string() || value.is_number() ? parse_duration_ms(seconds ? value.text + "s" : value.text) : std::nullopt;
    if (!n || static_cast<double>(*n) < field.min)
      return wrong(seconds ? "a number of seconds" : "a duration such as 200ms or 1m30s");
    as<int64_t>() = *n;
  }
  template <class F>
  void items(F each) const {
    if (!value.is_array() || value.items.size() > kListMax) return wrong(cat("a list of at most ", kListMax));
    for (size_t i = 0; i < value.items.size(); ++i) each(value.items[i], cat(path, "[", i, "]"));
  }
  void texts() const {
    std::vector<std::string> out;
    items([&](const Json& item, const std::string& at) {
      if (item.is_string() || item.is_number())
        out.push_back(item.text);
      else
        m.error(at, "must be a text");
    });
    as<std::vector<std::string>>() = std::move(out);
  }
  void labels() const {
    if (!value.is_object() || value.keys.size() > kListMax) return wrong(cat("a map of at most ", kListMax));
    Labels out;
    ObjectReader reader(&value, path, m);
    for (const std::string& key : value.keys) out.emplace_back(key, reader.text(key));
    std::ranges::sort(out);
    as<Labels>() = std::move(out);
  }
  void shares() const {
    if (!value.is_object() || value.keys.size() > kListMax) return wrong(cat("a map of at most ", kListMax));
    std::vector<std::pair<std::string, double>> out;
    ObjectReader reader(&value, path, m);
    for (const std::string& key : value.keys) out.emplace_back(key, reader.number(key, field.min, field.max).value_or(1));
    std::ranges::sort(out);
    as<std::vector<std::pair<std::string, double>>>() = std::move(out);
  }
  void expressions() const {
    constexpr std::string_view kOps[] = {"In", "NotIn", "Exists", "DoesNotExist"};
    std::vector<LabelExpression> out;
    items([&](const Json& item, const std::string& at) {
      ObjectReader reader(&item, at, m);
      LabelExpression e;
      e.key = reader.text("key");
      const std::string op = reader.text("operator");
      const auto known = std::ranges::find(kOps, op);
      if (e.key.empty()) m.error(at, "key is missing");
      if (known == std::end(kOps)) m.error(at + ".operator", "must be In, NotIn, Exists or DoesNotExist");
      e.op = static_cast<LabelOp>(known == std::end(kOps) ? 0 : known - kOps);
      if (const Json* values = reader.list("values")) {
        for (const Json& v : values->items) e.values.push_back(v.text);
      }
      const bool wants_values = e.op == LabelOp::kIn || e.op == LabelOp::kNotIn;
      if (known != std::end(kOps) && wants_values == e.values.empty())
        m.error(at + ".values", wants_values ? "is missing" : "must be empty for this operator");
      reader.done();
      out.push_back(std::move(e));
    });
    as<std::vector<LabelExpression>>() = std::move(out);
  }
  void limits() const {
    std::vector<GaugeLimit> out;
    const auto names = split(field.choices, '|');
    items([&](const Json& item, const std::string& at) {
      ObjectReader reader(&item, at, m);
      const std::string metric = reader.text("metric");
      const auto known = std::ranges::find(names, metric);
      if (known == names.end()) m.error(at + ".metric", cat("must be ", alternatives(field.choices)));
      const auto max = reader.number("maxValue", 0, 1e15);
      if (!max) m.error(at, "maxValue is missing");
      out.push_back({static_cast<Gauge>(known == names.end() ? 0 : known - names.begin()), max.value_or(0)});
      reader.done();
    });
    as<std::vector<GaugeLimit>>() = std::move(out);
  }
  void engines() const {
    std::vector<SourceParams::Engine> out;
    items([&](const Json& item, const std::string& at) {
      ObjectReader reader(&item, at, m);
      out.push_back({reader.text("name"), reader.text("queuedRequestsSpec"), reader.text("runningRequestsSpec"),
                     reader.text("kvUsageSpec"), reader.text("loraSpec"), reader.text("cacheInfoSpec")});
      if (out.back().name.empty()) m.error(at, "name is missing");
      reader.done();
    });
    as<std::vector<SourceParams::Engine>>() = std::move(out);
  }
  void tiers() const {
    std::vector<std::pair<std::string, float>> out;
    items([&](const Json& item, const std::string& at) {
      ObjectReader reader(&item, at, m);
      std::string name = reader.text("name");
      if (name.empty()) m.error(at, "name is missing");
      out.emplace_back(std::move(name), static_cast<float>(reader.number("weight", 0, 1e6).value_or(1)));
      reader.done();
    });
    as<std::vector<std::pair<std::string, float>>>() = std::move(out);
  }
  void sources() const {
    std::vector<std::string> out;
    items([&](const Json& item, const std::string& at) {
      ObjectReader reader(&item, at, m);
      const std::string header = reader.text("header"), attribute = reader.text("attribute");
      reader.text("producer");
      reader.done();
      if (header.empty() == attribute.empty()) return m.error(at, "must have either header or attribute");
      if (!attribute.empty())
        m.warn(at, "attributes are not known here; the session comes from the headers and session-id-producer");
      if (!header.empty()) out.push_back(header);
    });
    as<std::vector<std::string>>() = std::move(out);
  }
  void bind() const {
    switch (field.type) {
      case Type::kBool:
        if (!value.is_bool()) return wrong("true or false");
        as<bool>() = value.boolean;
        return;
      case Type::kInt:
        return integer();
      case Type::kNumber:
        return number();
      case Type::kText:
        return text();
      case Type::kTexts:
        return texts();
      case Type::kChoice:
        return choice();
      case Type::kDurationMs:
        return duration(false);
      case Type::kSeconds:
        return duration(true);
      case Type::kLabels:
        return labels();
      case Type::kExpressions:
        return expressions();
      case Type::kLimits:
        return limits();
      case Type::kEngines:
        return engines();
      case Type::kTiers:
        return tiers();
      case Type::kShares:
        return shares();
      case Type::kSources:
        return sources();
      case Type::kAny:
        return;
    }
  }
};

void bind_object(const PluginRow& row, const Json& object, const std::string& prefix, const std::string& path, Params& params,
                 Messages& m) {
  for (size_t i = 0; i < object.keys.size(); ++i) {
    const std::string name = prefix + object.keys[i], at = path + "." + object.keys[i];
    const Json& value = object.items[i];
    const auto field = std::ranges::find(row.fields, name, &Field::name);
    if (field != row.fields.end()) {
      if (!field->historic.empty()) m.warn(at, field->historic);
      if (!value.is_null() && field->at != nullptr) Binder{m, *field, value, at, field->at(params)}.bind();
      continue;
    }
    const std::string inner = name + ".";
    if (std::ranges::any_of(row.fields, [&](const Field& f) { return f.name.starts_with(inner); })) {
      if (value.is_null()) continue;
      if (value.is_object())
        bind_object(row, value, inner, at, params, m);
      else
        m.error(at, "must be a map");
      continue;
    }
    std::vector<std::string_view> known;
    for (const Field& f : row.fields) {
      if (f.name.starts_with(prefix))
        known.push_back(f.name.substr(prefix.size()).substr(0, f.name.substr(prefix.size()).find('.')));
    }
    m.error(at.substr(0, 200), cat("unknown parameter of ", row.type, near_name(object.keys[i], known)));
  }
}

template <class List, class F>
std::string flow_list(const List& list, F each) {
  std::string out = "[";
  for (const auto& item : list) out += (out.size() > 1 ? ", " : "") + each(item);
  return out + "]";
}

std::string value_text(const Field& f, void* from) {
  auto as = [&]<class T>(T*) -> const T& { return *static_cast<const T*>(from); };
  constexpr std::string_view kOps[] = {"In", "NotIn", "Exists", "DoesNotExist"};
  const auto names = split(f.choices, '|');
  switch (f.type) {
    case Type::kBool:
      return as(static_cast<bool*>(nullptr)) ? "true" : "false";
    case Type::kInt:
      return cat(as(static_cast<int64_t*>(nullptr)));
    case Type::kNumber:
      return cat(as(static_cast<double*>(nullptr)));
    case Type::kText:
      return yaml_text(as(static_cast<std::string*>(nullptr)));
    case Type::kTexts:
      return flow_list(as(static_cast<std::vector<std::string>*>(nullptr)), [](const auto& s) { return yaml_text(s); });
    case Type::kChoice:
      return std::string(names[std::min<size_t>(as(static_cast<uint8_t*>(nullptr)), names.size() - 1)]);
    case Type::kDurationMs:
      return cat(as(static_cast<int64_t*>(nullptr)), "ms");
    case Type::kSeconds: {
      const int64_t ms = as(static_cast<int64_t*>(nullptr));
      return ms % 1000 == 0 ? cat(ms / 1000) : cat(static_cast<double>(ms) / 1e3);
    }
    case Type::kLabels: {
      const std::string list = flow_list(as(static_cast<Labels*>(nullptr)),
                                         [](const auto& p) { return yaml_text(p.first) + ": " + yaml_text(p.second); });
      return "{" + list.substr(1, list.size() - 2) + "}";
    }
    case Type::kShares: {
      const std::string list = flow_list(as(static_cast<std::vector<std::pair<std::string, double>>*>(nullptr)),
                                         [](const auto& p) { return cat(yaml_text(p.first), ": ", p.second); });
      return "{" + list.substr(1, list.size() - 2) + "}";
    }
    case Type::kTiers:
      return flow_list(as(static_cast<std::vector<std::pair<std::string, float>>*>(nullptr)),
                       [](const auto& p) { return cat("{name: ", yaml_text(p.first), ", weight: ", shortest(p.second), "}"); });
    case Type::kExpressions:
      return flow_list(as(static_cast<std::vector<LabelExpression>*>(nullptr)), [&](const LabelExpression& e) {
        return cat("{key: ", yaml_text(e.key), ", operator: ", kOps[static_cast<size_t>(e.op)],
                   ", values: ", flow_list(e.values, [](const auto& s) { return yaml_text(s); }), "}");
      });
    case Type::kLimits:
      return flow_list(as(static_cast<std::vector<GaugeLimit>*>(nullptr)), [&](const GaugeLimit& l) {
        return cat("{metric: ", names[static_cast<size_t>(l.gauge)], ", maxValue: ", l.max, "}");
      });
    case Type::kEngines:
      return flow_list(as(static_cast<std::vector<SourceParams::Engine>*>(nullptr)), [](const SourceParams::Engine& e) {
        return cat("{name: ", yaml_text(e.name), ", queuedRequestsSpec: ", yaml_text(e.waiting),
                   ", runningRequestsSpec: ", yaml_text(e.running), ", kvUsageSpec: ", yaml_text(e.kv_usage),
                   ", loraSpec: ", yaml_text(e.lora), ", cacheInfoSpec: ", yaml_text(e.cache_info), "}");
      });
    case Type::kSources:
      return flow_list(as(static_cast<std::vector<std::string>*>(nullptr)),
                       [](const auto& s) { return cat("{header: ", yaml_text(s), "}"); });
    case Type::kAny:
      return "";
  }
  return "";
}

}  // namespace

std::string shortest(float f) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, f).ptr};
}

std::string yaml_text(std::string_view s) {
  const bool plain =
      !s.empty() && s.size() < 64 &&
      std::ranges::all_of(
          s,
          [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.' || c == '/';
          }) &&
      (s[0] >= 'a' && s[0] <= 'z') && s.size() > 3 && s != "true" && s != "false" && s != "null";
  return plain ? std::string(s) : json_string(s);
}

Params bind_params(const PluginRow& row, const Json* parameters, const std::string& path, Messages& messages) {
  Params params = row.make();
  if (parameters == nullptr || parameters->is_null()) return params;
  if (!parameters->is_object())
    messages.error(path, "must be a map");
  else
    bind_object(row, *parameters, "", path, params, messages);
  return params;
}

std::string default_text(const Field& field, const PluginRow& row) {
  Params params = row.make();
  return field.at == nullptr ? "" : value_text(field, field.at(params));
}

std::string print_params(const PluginRow& row, const Params& params, std::string_view indent) {
  Params copy = params;
  std::string out;
  std::vector<std::string_view> open;  // objects we are in
  for (const Field& f : row.fields) {
    if (f.at == nullptr || !f.historic.empty()) continue;
    const std::string text = value_text(f, f.at(copy));
    if (f.ours && text == default_text(f, row)) continue;
    std::vector<std::string_view> parts = split(f.name, '.');
    size_t same = 0;
    while (same < open.size() && same + 1 < parts.size() && open[same] == parts[same]) ++same;
    open.resize(same);
    for (; open.size() + 1 < parts.size(); open.push_back(parts[open.size()])) {
      out += cat(indent, std::string(2 * open.size(), ' '), parts[open.size()], ":\n");
    }
    out += cat(indent, std::string(2 * open.size(), ' '), parts.back(), ": ", text, "\n");
  }
  return out;
}

}  // namespace baton::route
