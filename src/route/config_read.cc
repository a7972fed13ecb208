// The file's top level into a Draft, whatever the generation.
#include <algorithm>

#include "route/config_parts.h"
#include "route/limits.h"

namespace baton::route {
namespace {

constexpr std::string_view kApis[] = {"llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1"};

NamedRef reference(ObjectReader& reader, std::string_view key) { return {reader.text(key), reader.at(key)}; }

// {pluginRef: name}
NamedRef plugin_ref(const Json* object, const std::string& path, Messages& m) {
  if (object == nullptr) return {};
  ObjectReader reader(object, path, m);
  NamedRef out = reference(reader, "pluginRef");
  if (out.name.empty() && object->is_object()) m.error(path, "pluginRef is missing");
  reader.done();
  return out;
}

std::vector<NamedRef> plugin_refs(const Json* list, const std::string& path, Messages& m) {
  std::vector<NamedRef> out;
  if (list == nullptr) return out;
  for (size_t i = 0; i < std::min(list->items.size(), kConfigPluginsMax); ++i) {
    NamedRef ref = plugin_ref(&list->items[i], cat(path, "[", i, "]"), m);
    if (!ref.name.empty()) out.push_back(std::move(ref));
  }
  return out;
}

void read_gates(const Json* list, Draft& d) {
  if (list == nullptr) return;
  for (size_t i = 0; i < list->items.size(); ++i) {
    const std::string path = cat("featureGates[", i, "]");
    if (!list->items[i].is_string()) {
      d.messages.error(path, "must be a text: name or name=true|false");
      continue;
    }
    std::string_view gate = list->items[i].text;
    const size_t equals = gate.find('=');
    const std::string_view name = gate.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "true" : gate.substr(equals + 1);
    const bool on = value == "true";
    if (!on && value != "false") d.messages.error(path, "must be name or name=true|false");
    if (name == "flowControl")
      d.plan.flow_control.enabled = on;
    else if (name == "haPopulateNonLeaderDatastore")
      d.plan.passive_replica_warm = on;
    else if (name == "dataLayer" || name == "prepareDataPlugins")
      d.messages.warn(path, cat("gate ", name, " is of an older release and always on"));
    else
      d.messages.error(path, cat("unknown feature gate", near_name(name, {"flowControl", "haPopulateNonLeaderDatastore"})));
  }
}

// What an alias stands for, unless it may not be used.
const PluginRow* usable_row(const std::string& type, const std::string& path, Draft& d) {
  const PluginRow* row = find_plugin(type);
  if (row == nullptr) {
    std::vector<std::string_view> known;
    for (const PluginRow* r : plugin_rows()) known.push_back(r->type);
    d.messages.error(path + ".type", cat("unknown plugin type ", json_string(type.substr(0, 80)), near_name(type, known)));
    return nullptr;
  }
  if (row->stability == Stability::kAlpha && !d.options.allow_experimental) {
    d.messages.error(path + ".type", cat(type, " is an alpha plugin: --allow-experimental-plugins admits it"));
    return nullptr;
  }
  if (!row->same_as.empty()) {
    d.messages.warn(path + ".type", cat(type, " is called ", row->same_as, " now"));
    row = find_plugin(row->same_as);
  }
  if (!row->refused.empty()) {
    d.messages.error(path + ".type", cat(type, " cannot be used: ", row->refused));
    return nullptr;
  }
  return row;
}

void read_plugin(const Json& item, const std::string& path, Draft& d) {
  ObjectReader reader(&item, path, d.messages);
  const std::string type = reader.text("type");
  const std::string name = reader.text("name", type);
  const Json* parameters = reader.take("parameters");
  reader.done();
  if (type.empty()) {
    if (item.is_object()) d.messages.error(path, "type is missing");
    if (!name.empty()) d.gone.insert(name);
    return;
  }
  if (d.find(name) != nullptr || d.gone.contains(name)) {
    d.messages.error(path + ".name", cat("there are two plugins named ", json_string(name.substr(0, 80))));
    return;
  }
  const PluginRow* row = usable_row(type, path, d);
  if (row == nullptr) {
    d.gone.insert(name);  // its error is told; references to it are not errors of their own
    return;
  }
  DraftPlugin plugin{{row, name, {}}, path, {}};
  if (row->ignored.empty() || !row->fields.empty())
    plugin.spec.params = bind_params(*row, parameters, path + ".parameters", d.messages);
  if (!row->ignored.empty()) {
    d.messages.warn(path + ".type", cat(type, " does nothing: ", row->ignored));
    d.gone.insert(name);
    return;
  }
  if (parameters != nullptr && parameters->is_object()) plugin.given.insert(parameters->keys.begin(), parameters->keys.end());
  d.plugins.push_back(std::move(plugin));
}

void read_plugins(const Json* list, Draft& d) {
  if (list == nullptr) return;
  if (list->items.size() > kConfigPluginsMax) return d.messages.error("plugins", cat("more than ", kConfigPluginsMax));
  for (size_t i = 0; i < list->items.size(); ++i) read_plugin(list->items[i], cat("plugins[", i, "]"), d);
}

void read_profiles(const Json* list, Draft& d) {
  if (list == nullptr) return;
  if (list->items.size() > kConfigProfilesMax)
    return d.messages.error("schedulingProfiles", cat("more than ", kConfigProfilesMax));
  for (size_t i = 0; i < list->items.size(); ++i) {
    DraftProfile profile;
    profile.path = cat("schedulingProfiles[", i, "]");
    ObjectReader reader(&list->items[i], profile.path, d.messages);
    profile.name = reader.text("name");
    if (profile.name.empty()) d.messages.error(profile.path, "name is missing");
    if (std::ranges::any_of(d.profiles, [&](const DraftProfile& p) { return p.name == profile.name; })) {
      d.messages.error(profile.path + ".name", cat("there are two profiles named ", json_string(profile.name.substr(0, 80))));
    }
    if (const Json* refs = reader.list("plugins")) {
      for (size_t k = 0; k < std::min(refs->items.size(), kConfigProfilePluginsMax); ++k) {
        const std::string path = cat(profile.path, ".plugins[", k, "]");
        ObjectReader ref(&refs->items[k], path, d.messages);
        DraftProfile::Ref out{ref.text("pluginRef"), path, ref.number("weight", 0, 1e9)};
        if (out.plugin.empty() && refs->items[k].is_object()) d.messages.error(path, "pluginRef is missing");
        ref.done();
        if (!out.plugin.empty()) profile.refs.push_back(std::move(out));
      }
      if (refs->items.size() > kConfigProfilePluginsMax)
        d.messages.error(profile.path + ".plugins", cat("more than ", kConfigProfilePluginsMax));
    }
    reader.done();
    d.profiles.push_back(std::move(profile));
  }
  d.profiles_given = !d.profiles.empty();
}

DraftBand read_band(const Json* object, const std::string& path, bool numbered, const DraftBand& base, Draft& d) {
  DraftBand out = base;
  if (object == nullptr) return out;
  ObjectReader reader(object, path, d.messages);
  if (numbered) {
    const auto priority = reader.integer("priority", INT32_MIN, INT32_MAX);
    if (!priority && reader.take("priority") == nullptr) d.messages.error(path, "priority is missing");
    out.params.priority = priority.value_or(0);
  }
  out.params.bytes_max = reader.quantity("maxBytes").value_or(out.params.bytes_max);
  out.params.requests_max = reader.quantity("maxRequests").value_or(out.params.requests_max);
  if (NamedRef ref = reference(reader, "fairnessPolicyRef"); !ref.name.empty()) out.fairness = ref;
  if (NamedRef ref = reference(reader, "orderingPolicyRef"); !ref.name.empty()) out.ordering = ref;
  reader.done();
  return out;
}

void read_flow_control(const Json* object, Draft& d) {
  if (object == nullptr) return;
  FlowControlParams& flow = d.plan.flow_control;
  ObjectReader reader(object, "flowControl", d.messages);
  flow.bytes_max = reader.quantity("maxBytes").value_or(0);
  flow.requests_max = reader.quantity("maxRequests").value_or(0);
  flow.ttl_ms = reader.duration_ms("defaultRequestTTL").value_or(flow.ttl_ms);
  flow.no_endpoint_ttl_ms = reader.duration_ms("noEndpointRequestTTL").value_or(-1);
  d.default_band = read_band(reader.take("defaultPriorityBand"), "flowControl.defaultPriorityBand", false, d.default_band, d);
  d.default_negative_band = read_band(reader.take("defaultNegativePriorityBand"), "flowControl.defaultNegativePriorityBand",
                                      false, d.default_negative_band, d);
  if (const Json* bands = reader.list("priorityBands")) {
    if (bands->items.size() > kConfigPluginsMax)
      d.messages.error("flowControl.priorityBands", cat("more than ", kConfigPluginsMax));
    std::set<int64_t> seen;
    for (size_t i = 0; i < std::min(bands->items.size(), kConfigPluginsMax); ++i) {
      const std::string path = cat("flowControl.priorityBands[", i, "]");
      d.bands.push_back(read_band(&bands->items[i], path, true, {}, d));
      if (!seen.insert(d.bands.back().params.priority).second) d.messages.error(path + ".priority", "is given twice");
    }
  }
  d.ceiling = reference(reader, "usageLimitPolicyPluginRef");
  d.detector = plugin_ref(reader.take("saturationDetector"), "flowControl.saturationDetector", d.messages);
  flow.eviction = reader.boolean("enableEviction").value_or(false);
  reader.done();
}

void read_sources(const Json* list, const std::string& path, Draft& d) {
  if (list == nullptr) return;
  for (size_t i = 0; i < std::min(list->items.size(), kConfigPluginsMax); ++i) {
    const std::string at = cat(path, "[", i, "]");
    ObjectReader reader(&list->items[i], at, d.messages);
    if (NamedRef ref = reference(reader, "pluginRef"); !ref.name.empty())
      d.sources.push_back(ref);
    else
      d.messages.error(at, "pluginRef is missing");
    for (NamedRef& ref : plugin_refs(reader.list("extractors"), at + ".extractors", d.messages))
      d.extractors.push_back(std::move(ref));
    reader.done();
  }
}

void read_data_layer(const Json* object, std::string_view key, Draft& d) {
  if (object == nullptr) return;
  const std::string path(key);
  ObjectReader reader(object, path, d.messages);
  d.inject_defaults = reader.boolean("injectDefaults").value_or(true);
  read_sources(reader.list("sources"), path + ".sources", d);
  d.discovery = plugin_ref(reader.take("discovery"), path + ".discovery", d.messages);
  if (reader.take("peerDiscovery") != nullptr) d.messages.warn(path + ".peerDiscovery", "replicas find each other by --peers");
  if (!reader.text("crossReplicaSyncerPluginRef").empty())
    d.messages.warn(path + ".crossReplicaSyncerPluginRef", "replicas exchange their state by --peers");
  reader.duration_ms("crossReplicaSyncInterval");
  reader.done();
}

// The deprecated place: a reference, or in v1.2 the thresholds themselves.
void read_old_detector(const Json* object, Draft& d) {
  if (object == nullptr) return;
  const std::string path = "saturationDetector";
  if (object->find("pluginRef") != nullptr) {
    d.messages.warn(path, "belongs into flowControl now");
    if (d.detector.name.empty()) d.detector = plugin_ref(object, path, d.messages);
    return;
  }
  d.messages.warn(path, "its values belong to a utilization-detector plugin now; one is made with them");
  const PluginRow* row = find_plugin("utilization-detector");
  DraftPlugin made{{row, "utilization-detector", bind_params(*row, object, path, d.messages)}, path, {}};
  if (d.find(made.spec.name) == nullptr) d.plugins.push_back(std::move(made));
  d.detector = {"utilization-detector", path};
}

}  // namespace

void read_draft(const Json& root, Draft& d) {
  d.default_band.params.priority = d.default_negative_band.params.priority = 0;
  d.plan.flow_control.enabled = d.options.flow_control;
  ObjectReader reader(&root, "", d.messages);
  const std::string api = reader.text("apiVersion"), kind = reader.text("kind");
  if (api == kApis[1])
    d.messages.warn("apiVersion", cat(kApis[1], " is called ", kApis[0], " now"));
  else if (api.empty())
    d.messages.warn("apiVersion", cat("is missing, taken as ", kApis[0]));
  else if (api != kApis[0])
    d.messages.error("apiVersion", cat("must be ", kApis[0], " or ", kApis[1]));
  if (kind.empty())
    d.messages.warn("kind", "is missing, taken as EndpointPickerConfig");
  else if (kind != "EndpointPickerConfig")
    d.messages.error("kind", cat("must be EndpointPickerConfig", near_name(kind, {"EndpointPickerConfig"})));
  read_gates(reader.list("featureGates"), d);
  read_plugins(reader.list("plugins"), d);
  read_profiles(reader.list("schedulingProfiles"), d);
  if (const Json* handler = reader.take("requestHandler")) {
    ObjectReader inner(handler, "requestHandler", d.messages);
    d.parsers = plugin_refs(inner.list("parsers"), "requestHandler.parsers", d.messages);
    d.parsers_given = !d.parsers.empty();
    inner.done();
  }
  if (const Json* parser = reader.take("parser")) {
    d.messages.warn("parser", "is requestHandler.parsers now");
    if (!d.parsers_given) d.parsers = {plugin_ref(parser, "parser", d.messages)};
    d.parsers_given = !d.parsers[0].name.empty();
  }
  read_data_layer(reader.take("dataLayer"), "dataLayer", d);
  if (const Json* data = reader.take("data")) {
    d.messages.warn("data", "is dataLayer now");
    read_data_layer(data, "data", d);
  }
  read_flow_control(reader.take("flowControl"), d);
  read_old_detector(reader.take("saturationDetector"), d);
  if (d.options.flow_control) d.plan.flow_control.enabled = true;
  reader.done();
}

}  // namespace baton::route
