// Roles, states, names and secrets of the pods.
#include <algorithm>

#include "deploy/checks.h"

namespace baton::deploy {
namespace {

struct Reason {
  std::string_view waiting, advice;
};
// What a container waits for, as the kubelet calls it. One a row.
constexpr Reason kReasons[] = {
    {"ImagePullBackOff",
     "the image is not there, or needs a pull secret; on minikube or kind load it: minikube image load, kind load docker-image"},
    {"ErrImagePull",
     "the image is not there, or needs a pull secret; on minikube or kind load it: minikube image load, kind load docker-image"},
    {"ErrImageNeverPull", "imagePullPolicy Never, and the node has no such image: load it there"},
    {"InvalidImageName", "the image's name is no name: IMAGE_REGISTRY, or the values' image"},
    {"CreateContainerConfigError",
     "a Secret or ConfigMap it names is missing: kubectl create secret generic llm-d-hf-token --from-literal=HF_TOKEN=..."},
    {"CreateContainerError", "kubectl describe pod: its last event says why"},
    {"CrashLoopBackOff", "kubectl logs --previous of that container says why"},
};

Outcome waiting(const std::string& pod, const Json& status) {
  const std::string reason = text_at(status, {"state", "waiting", "reason"}), container = text_at(status, {"name"});
  const std::string message = text_at(status, {"state", "waiting", "message"}).substr(0, 120);
  const bool memory = text_at(status, {"lastState", "terminated", "reason"}) == "OOMKilled";
  if (memory)
    return failed(cat(pod, " ", container, ": out of memory, killed"),
                  "a higher memory limit, a shorter --max-model-len, or more devices: baton deploy plan");
  for (const Reason& row : kReasons) {
    if (reason == row.waiting)
      return failed(cat(pod, " ", container, ": ", reason, message.empty() ? "" : cat(": ", message)), std::string(row.advice));
  }
  return {};
}

Outcome unscheduled(const std::string& pod, const std::string& message) {
  std::string advice = "kubectl describe pod says what no node has";
  if (message.find("rdma") != message.npos) {
    advice = "no node has that network device: RDMA_RESOURCE=<your cluster's name for it>, or none for KV over TCP";
  } else if (message.find("nvidia.com") != message.npos || message.find(".com/") != message.npos) {
    advice = "no node has so many devices free: fewer replicas, or its device plugin is not running";
  } else if (message.find("cpu") != message.npos || message.find("memory") != message.npos) {
    advice = "requests do not fit on any node: the values' resources, or -e kind for a laptop";
  }
  return failed(cat(pod, " is not placed: ", message.substr(0, 160)), advice);
}

}  // namespace

Outcome roles(const Cluster& cluster) {
  std::map<std::string, int> count;
  int unsaid = 0;
  for (const Json& pod : cluster.items("pods")) {
    if (!is_model_pod(pod)) continue;
    const std::string role = role_of(pod);
    role.empty() ? ++unsaid : ++count[role];
  }
  const int both = count["both"] + count["prefill-decode"];
  if (count["prefill"] > 0 && count["decode"] > 0)
    return {.detail = cat(count["prefill"], " prefill, ", count["decode"], " decode")};
  if (count["decode"] + both > 0 && count["prefill"] == 0)
    return count["decode"] > 0
               ? failed("no prefill pod", "ms release: prefill.create and prefill.replicas; pods carry llm-d.ai/role=prefill")
               : note("pods do both", "no hand-over in an aggregated stack");
  if (count["prefill"] > 0)
    return failed("no decode pod", "ms release: decode.create and decode.replicas; pods carry llm-d.ai/role=decode");
  if (unsaid > 0)
    return failed(cat(unsaid, " model pods without llm-d.ai/role"),
                  "label them prefill and decode: the picker's filters go by it");
  return failed("no model server pod", "the ms release makes them: helm list, helm status ms-pd");
}

Outcome pods_ready(const Cluster& cluster) {
  std::vector<std::string> loading;
  size_t all = 0;
  for (const Json& pod : cluster.items("pods")) {
    const std::string name = object_name(pod), phase = text_at(pod, {"status", "phase"});
    if (phase == "Succeeded" || pod.find_path({"metadata", "deletionTimestamp"}) != nullptr) continue;
    ++all;
    const auto& conditions = items_at(pod, {"status", "conditions"});
    for (const char* list : {"initContainerStatuses", "containerStatuses"}) {
      for (const Json& status : items_at(pod, {"status", list})) {
        if (Outcome o = waiting(name, status); o.verdict != CheckResult::Verdict::kOk) return o;
      }
    }
    if (const Json* placed = condition(conditions, "PodScheduled"); placed != nullptr && text_at(*placed, {"status"}) == "False")
      return unscheduled(name, text_at(*placed, {"message"}));
    const Json* ready = condition(conditions, "Ready");
    if (ready == nullptr || text_at(*ready, {"status"}) != "True") loading.push_back(name);
  }
  if (!loading.empty())
    return failed(cat(named(loading), loading.size() == 1 ? " is" : " are", " not ready"),
                  "weights still loading? kubectl logs -c vllm; a decode pod is ready when its server is");
  return {.detail = cat(all, " of ", all)};
}

Outcome names_fit(const Cluster& cluster) {
  std::vector<std::string> cut;
  for (const Json& pod : cluster.items("pods")) {
    const bool host = text_at(pod, {"spec", "hostname"}).empty() && object_name(pod).size() > 63;
    if (host && is_model_pod(pod)) cut.push_back(object_name(pod));
  }
  if (cut.empty()) return {};
  return failed(cat(cut[0], " has ", cut[0].size(), " characters; host names end at 63"),
                "a shorter RELEASE_NAME_POSTFIX (or fullnameOverride): some servers do not start under a name that was cut");
}

Outcome secrets(const Cluster& cluster) {
  std::map<std::string, std::string> asked;  // "name/key" -> pod
  for (const Json& pod : cluster.items("pods")) {
    for (const Json& container : items_at(pod, {"spec", "containers"})) {
      for (const Json& variable : items_at(container, {"env"})) {
        const std::string name = text_at(variable, {"valueFrom", "secretKeyRef", "name"});
        if (!name.empty()) asked[cat(name, "/", text_at(variable, {"valueFrom", "secretKeyRef", "key"}))] = object_name(pod);
      }
    }
  }
  for (const auto& [what, pod] : asked) {
    const std::string name = what.substr(0, what.find('/')), key = what.substr(what.find('/') + 1);
    const std::string create = cat("kubectl create secret generic ", name, " --from-literal=", key, "=... -n ", cluster.ns);
    const Look* seen = cluster.find("secret/" + name);
    if (seen == nullptr || seen->status == 403)
      return note(cat(name, " may not be read by this account"), "whether it is empty is not known");
    if (seen->status != 200) return failed(cat(name, " is not there, and ", pod, " reads it"), create);
    const std::string value = text_at(seen->json, {"data", key});
    // What an empty variable, or `HF_TOKEN= $x`, leaves behind: nothing, or a line's end (Cg==).
    if (value.empty() || value == "Cg==" || value == "IA==")
      return failed(cat(name, " has no ", key), cat("it is empty; kubectl delete secret ", name, "; ", create));
  }
  return {.detail = asked.empty() ? "none is read" : cat(asked.size(), asked.size() == 1 ? " key" : " keys")};
}

}  // namespace baton::deploy
