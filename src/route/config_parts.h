#pragma once
// The steps of load_config(), for its own files: text -> Draft (what the file says) -> modernised, injected, checked -> Plan.
// Every step goes on after an error, so that all are told at once.
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "route/config.h"
#include "route/plugins.h"

namespace baton::route {

struct Messages {
  std::vector<std::string> errors, warnings;
  size_t errors_left_out = 0, warnings_left_out = 0;
  void error(std::string_view path, std::string_view text);
  void warn(std::string_view path, std::string_view text);
};

// ", did you mean \"x\"?" if one of the names is near, else "".
std::string near_name(std::string_view given, const std::vector<std::string_view>& known);

// Reads the fields of one JSON object; names what is wrong, and at done() what nobody asked for.
class ObjectReader {
 public:
  ObjectReader(const Json* object, std::string path, Messages& messages);
  const Json* take(std::string_view key);  // nullptr if absent or null
  std::string text(std::string_view key, std::string fallback = "");
  std::optional<bool> boolean(std::string_view key);
  std::optional<int64_t> integer(std::string_view key, int64_t min, int64_t max);
  std::optional<double> number(std::string_view key, double min, double max);
  std::optional<int64_t> quantity(std::string_view key);     // 5000, "1Gi", "2M"
  std::optional<int64_t> duration_ms(std::string_view key);  // "1m30s", "200ms"
  const Json* list(std::string_view key);
  std::string at(std::string_view key) const { return path_.empty() ? std::string(key) : path_ + "." + std::string(key); }
  void done();

 private:
  const Json* object_;
  std::string path_;
  Messages& messages_;
  std::set<std::string, std::less<>> known_;
};

std::optional<int64_t> parse_duration_ms(std::string_view text);
std::optional<int64_t> parse_quantity(std::string_view text);

// config_params.cc
Params bind_params(const PluginRow& row, const Json* parameters, const std::string& path, Messages& messages);
std::string print_params(const PluginRow& row, const Params& params, std::string_view indent);  // "" if there is nothing to say
std::string yaml_text(std::string_view s);
std::string shortest(float f);  // as few digits as read back as it
std::string default_text(const Field& field, const PluginRow& row);

struct DraftPlugin {
  PluginSpec spec;
  std::string path;
  std::set<std::string> given;  // names of the parameters that the file has
};
struct DraftProfile {
  struct Ref {
    std::string plugin, path;
    std::optional<double> weight;
  };
  std::string name, path;
  std::vector<Ref> refs;
};
struct NamedRef {  // a reference to a plugin, and where it stands
  std::string name, path;
};
struct DraftBand {
  BandParams params;
  NamedRef fairness, ordering;
};

struct Draft {
  Messages messages;
  LoadOptions options;
  Plan plan;
  std::vector<DraftPlugin> plugins;
  std::set<std::string> gone;  // names of plugins that load as nothing: references to them are dropped
  bool profiles_given = false;
  std::vector<DraftProfile> profiles;
  std::vector<NamedRef> parsers, sources, extractors;
  bool parsers_given = false, inject_defaults = true;
  NamedRef detector, discovery, ceiling;
  DraftBand default_band, default_negative_band;
  std::vector<DraftBand> bands;
  DraftPlugin* find(std::string_view name);
  DraftPlugin* find_type(std::string_view type);
  DraftPlugin& add(std::string_view type, std::string name = "");
  std::vector<std::string_view> names() const;
};

void read_draft(const Json& root, Draft& draft);    // config_read.cc
void modernise(Draft& draft);                       // config_modernise.cc
void inject(Draft& draft);                          // config_modernise.cc
std::shared_ptr<const Plan> compile(Draft& draft);  // config_compile.cc; nullptr if there are errors

inline constexpr std::string_view kRoleLabel = "llm-d.ai/role";

}  // namespace baton::route
