#include "deploy/ratio_objects.h"

#include "deploy/cluster.h"

namespace baton::deploy {

Result<Scale> parse_scale(std::string_view object) {
  BATON_TRY(const Json json, parse_json(object, {.bytes_max = 1 << 20}));
  Scale out;
  const Json* replicas = json.find_path({"spec", "replicas"});  // left away where it is 0
  const auto n = replicas != nullptr ? replicas->as_int() : std::optional<int64_t>(0);
  if (!n || *n < 0 || *n > 1'000'000) return fail(Code::kInvalidArgument, "spec.replicas of a Scale is no number of pods");
  out.replicas = static_cast<int>(*n);
  out.selector = text_at(json, {"status", "selector"});
  out.version = text_at(json, {"metadata", "resourceVersion"});
  if (out.selector.empty()) return fail(Code::kInvalidArgument, "a Scale without status.selector");
  return out;
}

std::string scale_text(std::string_view ns, std::string_view name, const Scale& scale) {
  JsonWriter w;
  w.object().field("apiVersion", "autoscaling/v1").field("kind", "Scale").key("metadata").object();
  w.field("name", name).field("namespace", ns).field("resourceVersion", scale.version).end();
  w.key("spec").object().field("replicas", scale.replicas).end().end();
  return w.take();
}

std::string deletion_cost_patch(bool first_to_go) {
  JsonWriter w;
  w.object().key("metadata").object().key("annotations").object().key(kDeletionCost);
  if (first_to_go) {
    w.value(kFirstToGo);
  } else {
    w.null();
  }
  return w.end().end().end().take();
}

Result<ModelPod> parse_model_pod(const Json& object, int port) {
  BATON_TRY(const discovery::Pod pod, discovery::parse_pod(object));
  ModelPod out{.name = pod.name, .host = pod.hosts.empty() ? "" : pod.hosts[0], .port = metrics_port(object), .ready = pod.ready};
  if (out.port == 0) out.port = port;
  out.leaving = object.find_path({"metadata", "deletionTimestamp"}) != nullptr;
  const std::string phase = text_at(object, {"status", "phase"});
  out.ended = phase == "Succeeded" || phase == "Failed";
  out.first_to_go = text_at(object, {"metadata", "annotations", kDeletionCost}) == kFirstToGo;
  return out;
}

std::string autoscaler_of(const Json& list, std::string_view deployment) {
  for (const Json& one : items_at(list, {"items"})) {
    const bool same = text_at(one, {"spec", "scaleTargetRef", "kind"}) == "Deployment" &&
                      text_at(one, {"spec", "scaleTargetRef", "name"}) == deployment;
    if (same) return object_name(one);
  }
  return "";
}

}  // namespace baton::deploy
