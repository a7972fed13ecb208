#include "deploy/verify.h"

#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "deploy/checks.h"
#include "deploy/relay.h"

namespace baton::deploy {
namespace {

using Verdict = CheckResult::Verdict;

// The requests' checks, those that passed as one line; the hand-over, which all is about, keeps its own.
void add_requests(std::vector<CheckResult> asked, std::vector<CheckResult>& out) {
  std::vector<CheckResult> kept;
  size_t passed = 0, counted = 0;
  for (CheckResult& r : asked) {
    if (r.name == "metrics") continue;  // of the pods: ours
    ++counted;
    passed += r.verdict == Verdict::kOk ? 1 : 0;
    if (r.verdict != Verdict::kOk || r.name == "KV was handed over") kept.push_back(std::move(r));
  }
  if (passed > 0) out.push_back({Verdict::kOk, "requests are answered", cat(passed, " of ", counted, " checks"), ""});
  std::ranges::move(kept, std::back_inserter(out));
}

std::string door_missing(const Cluster& cluster) {
  const auto gateways = cluster.items("gateways");
  const auto addresses = gateways.empty() ? std::span<const Json>() : items_at(gateways[0], {"status", "addresses"});
  return addresses.empty() ? "" : cat("http://", text_at(addresses[0], {"value"}));  // GKE: nothing of it is in the cluster
}

// What the API server itself says against asking the Service; "" = nothing, or the Service answered, whatever it said.
std::string refused(const discovery::KubeAccess& access, const std::string& ns, const Door& door) {
  const SteadyClock clock;
  discovery::KubeClient client(access, {}, clock);
  std::string out;
  if (!client.check()) return out;
  net::run_task([&]() -> net::Task<> {
    discovery::KubeClient::Ask ask;
    ask.target = cat("/api/v1/namespaces/", ns, "/services/http:", door.service, ":", door.port, "/proxy/health");
    auto response = co_await client.fetch(ask);
    if (!response || response->status < 400) co_return;
    const auto json = parse_json(response->body, {.bytes_max = 1 << 20});
    if (json && text_at(*json, {"kind"}) == "Status") out = discovery::status_error(response->status, response->body).message;
  });
  return out;
}

std::vector<CheckResult> request_checks(const VerifyCommand& c, const Cluster& cluster, const discovery::KubeAccess& access,
                                        const Probe& probe) {
  if (!c.url.empty()) return probe(c, c.url);
  const Door door = door_of(cluster);
  if (door.service.empty()) {
    const std::string address = door_missing(cluster);
    if (!address.empty()) return probe(c, address);
    return {
        {Verdict::kFailed, "requests are answered", "no Service of a gateway", "--url http://..., as a port-forward gives it"}};
  }
  if (const std::string why = refused(access, c.ns, door); !why.empty())
    return {{Verdict::kFailed, "requests are answered", cat("Service ", door.service, ": ", why),
             "no ready pod behind it, or this account may not use services/proxy (get and create): --url http://..., as kubectl "
             "port-forward gives it"}};
  const SteadyClock clock;
  Relay relay(access, clock, c.ns, cat(door.service, ":", door.port), net::Millis(1000 * c.timeout_s));
  if (auto started = relay.start(); !started)
    return {{Verdict::kFailed, "requests are answered", started.error().message, "--url http://..."}};
  return probe(c, relay.url());
}

}  // namespace

Options verify_options(VerifyCommand& c) {
  Options o("baton deploy verify", "is the stack in this namespace right, and what to do if not",
            "baton deploy verify -n llm-d-pd");
  o.add("namespace", &c.ns, "of the stack").alias("n").env("NAMESPACE");
  o.add("kubeconfig", &c.kubeconfig, "path; empty = $KUBECONFIG, the pod's account, or ~/.kube/config");
  o.add("context", &c.context, "of the kubeconfig; empty = its current one");
  o.add("url", &c.url, "where the stack listens; empty = its gateway's Service, through the API server");
  o.add("model", &c.model, "model name; empty = the stack's first");
  o.add("api-key", &c.api_key, "bearer token, with --url").env("OPENAI_API_KEY");
  o.add("requests", &c.requests, "send requests; --no-requests only reads objects");
  o.add("prompt-words", &c.prompt_words, "words", "length of the prompt that is to be handed over", 1, 100'000);
  o.add("timeout", &c.timeout_s, "s", "for each request", 1, 3600);
  o.add("json", &c.json, "one JSON object");
  return o;
}

Result<std::vector<CheckResult>> verify_checks(const VerifyCommand& c, const Probe& probe) {
  BATON_TRY(const discovery::KubeAccess access,
            discovery::find_kube_access(discovery::Environment::of_process(), c.kubeconfig, c.context));
  const SteadyClock clock;
  discovery::KubeClient client(access, {}, clock);
  BATON_OK(client.check());
  Cluster cluster;
  net::run_task([&]() -> net::Task<> { cluster = co_await read_cluster(client, c.ns); });
  std::vector<CheckResult> out = check_objects(cluster);
  if (out.size() == 1) return out;  // nobody there, or nothing
  if (c.requests) add_requests(request_checks(c, cluster, access, probe), out);
  discovery::KubeClient again(access, {}, clock);
  BATON_OK(again.check());
  net::run_task([&]() -> net::Task<> { co_await read_metrics(again, cluster); });
  std::ranges::move(check_traffic(cluster), std::back_inserter(out));
  return out;
}

Result<> verify(const VerifyCommand& c, const Probe& probe) {
  BATON_TRY(const auto results, verify_checks(c, probe));
  const std::string text =
      c.json ? checks_json(results) : checks_screen(cat("baton deploy verify -n ", c.ns), results, ::isatty(1) == 1);
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
  if (const CheckResult* wrong = first_failure(results)) return fail(Code::kFailedPrecondition, wrong->name, ": ", wrong->detail);
  return {};
}

}  // namespace baton::deploy
