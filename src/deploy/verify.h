#pragma once
// `baton deploy verify`: is the stack in this namespace right, from its custom resources to KV that moves? It reads through the
// Kubernetes API (kubeconfig, or the pod's own account), sends a few requests through the stack's own door, and says one line a
// check, what to do for each that failed, and a verdict. It changes nothing. Needs: get and list in the namespace, get and
// create of services/proxy and pods/proxy.
#include <functional>

#include "base/checks.h"
#include "base/config.h"
#include "base/result.h"

namespace baton::deploy {

struct VerifyCommand {
  std::string ns = "llm-d-pd", kubeconfig, context;
  std::string url;  // of the gateway; "" = through the API server
  std::string model, api_key;
  bool requests = true, json = false;
  int prompt_words = 400, timeout_s = 120;
};
// Asks a stack at a URL: `baton verify`, which lies in another folder.
using Probe = std::function<std::vector<CheckResult>(const VerifyCommand&, const std::string& url)>;

Options verify_options(VerifyCommand& command);
Result<std::vector<CheckResult>> verify_checks(const VerifyCommand& command, const Probe& probe);
Result<> verify(const VerifyCommand& command, const Probe& probe);  // prints; an error if a check failed

}  // namespace baton::deploy
