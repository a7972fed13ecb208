#include "epp/plan_source.h"


#include "base/file.h"
#include "epp/limits.h"

namespace baton::epp {
namespace {

// The flags of GIE v0.5 to v1.3 about model servers' metrics, which today's configuration says itself.
std::shared_ptr<const route::Plan> with_flags(std::shared_ptr<const route::Plan> plan, const RouterFlags& f) {
  const bool renamed = !f.waiting_metric.empty() || !f.running_metric.empty() || !f.kv_usage_metric.empty() ||
                       !f.lora_metric.empty() || !f.cache_info_metric.empty();
  const bool moved = !f.metrics_path.empty() || !f.metrics_scheme.empty() || f.model_server_metrics_port != 0;
  if (!renamed && !moved && f.metrics_insecure_skip_verify) return plan;
  auto changed = std::make_shared<route::Plan>(*plan);
  route::SourceParams& source = changed->source;
  if (!f.metrics_path.empty()) source.path = f.metrics_path;
  if (!f.metrics_scheme.empty()) source.scheme = f.metrics_scheme;
  if (f.model_server_metrics_port != 0) source.port = f.model_server_metrics_port;
  if (!f.metrics_insecure_skip_verify) source.insecure_skip_verify = false;
  if (renamed) {
    source.engines.push_back({.name = source.default_engine,
                              .waiting = f.waiting_metric,
                              .running = f.running_metric,
                              .kv_usage = f.kv_usage_metric,
                              .lora = f.lora_metric,
                              .cache_info = f.cache_info_metric});
  }
  return changed;
}

std::string lines(std::string_view prefix, const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) out += cat(prefix, text, "\n");
  return out;
}

}  // namespace

Result<std::string> PlanSource::read() const {
  if (flags_.config_file.empty()) return flags_.config_text;
  auto text = read_file(flags_.config_file, kConfigBytesMax);
  if (!text) return within("--config-file", text.error());
  if (text->empty()) return fail(Code::kInvalidArgument, flags_.config_file, ": is empty");
  return text;
}

route::Loaded PlanSource::loaded(Result<std::string> text) {
  last_ = text ? *text : text.error().message;
  route::Loaded out;
  if (!text) {
    out.errors.push_back(text.error().message);
  } else if (text->empty()) {
    out.plan = route::default_plan();
  } else {
    out = route::load_config(
        *text, {.allow_experimental = flags_.allow_experimental_plugins, .flow_control = flags_.experimental_flow_control});
  }
  if (!out.errors.empty()) out.plan.reset();
  if (out.plan) out.plan = with_flags(std::move(out.plan), flags_);
  return out;
}

route::Loaded PlanSource::load() { return loaded(read()); }

std::optional<route::Loaded> PlanSource::changed() {
  auto text = read();
  if (last_ && *last_ == (text ? *text : text.error().message)) return std::nullopt;
  return loaded(std::move(text));
}

Explained validate_config(const RouterFlags& flags) {
  const route::Loaded loaded = PlanSource(flags).load();
  Explained out{
      .out = "", .err = lines("warning: ", loaded.warnings) + lines("error: ", loaded.errors), .code = loaded.plan ? 0 : 1};
  if (loaded.plan) out.out = cat("configuration is good", loaded.warnings.empty() ? "" : ", with warnings", "\n");
  return out;
}

Explained print_config(const RouterFlags& flags, const Options& options) {
  const route::Loaded loaded = PlanSource(flags).load();
  Explained out = {
      .out = "", .err = lines("warning: ", loaded.warnings) + lines("error: ", loaded.errors), .code = loaded.plan ? 0 : 1};
  if (!loaded.plan) return out;
  out.out = route::print_config(*loaded.plan);
  if (!out.out.ends_with('\n')) out.out += '\n';
  out.out += "# flags:\n";
  const std::string text = options.config_text();
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1);
    out.out += cat("# ", std::string_view(text).substr(at, end - at), "\n");
    at = end + 1;
  }
  return out;
}

}  // namespace baton::epp
