#include "discovery/lease.h"

#include "base/json.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

constexpr JsonLimits kLimits{.bytes_max = kAnswerBytesMax, .nodes_max = 100'000, .depth_max = 64};

std::string spec_of(const Lease& lease) {
  JsonWriter w;
  w.object().field("holderIdentity", lease.holder).field("leaseDurationSeconds", lease.duration_s);
  if (!lease.acquired.empty()) w.field("acquireTime", lease.acquired);
  if (!lease.renewed.empty()) w.field("renewTime", lease.renewed);
  return w.field("leaseTransitions", lease.transitions).end().take();
}

}  // namespace

Result<Lease> parse_lease(std::string_view object) {
  BATON_TRY(const Json json, parse_json(object, kLimits));
  const auto text = [&](std::string_view parent, std::string_view key) -> std::string {
    const Json* found = json.find_path({parent, key});
    return found && found->is_string() && found->text.size() <= kTextBytesMax ? found->text : "";
  };
  const auto number = [&](std::string_view key) -> int64_t {
    const Json* found = json.find_path({"spec", key});
    return found ? found->as_int().value_or(0) : 0;
  };
  Lease out{.holder = text("spec", "holderIdentity"),
            .duration_s = number("leaseDurationSeconds"),
            .transitions = number("leaseTransitions"),
            .acquired = text("spec", "acquireTime"),
            .renewed = text("spec", "renewTime"),
            .version = text("metadata", "resourceVersion")};
  if (out.version.empty()) return fail(Code::kDataLoss, "a lease without resourceVersion");
  return out;
}

std::string new_lease(std::string_view ns, std::string_view name, const Lease& lease) {
  JsonWriter w;
  w.object().field("apiVersion", "coordination.k8s.io/v1").field("kind", "Lease");
  w.key("metadata").object().field("name", name).field("namespace", ns).end();
  return w.key("spec").raw(spec_of(lease)).end().take();
}

Result<std::string> with_lease(std::string_view object, const Lease& lease) {
  BATON_TRY(const Json json, parse_json(object, kLimits));
  const Json* spec = json.find("spec");
  if (spec) return cat(object.substr(0, spec->begin), spec_of(lease), object.substr(spec->end));
  if (!json.is_object() || json.keys.empty()) return fail(Code::kDataLoss, "a lease that is no object");
  return cat(object.substr(0, json.begin + 1), "\"spec\":", spec_of(lease), ",", object.substr(json.begin + 1));
}

}  // namespace baton::discovery
