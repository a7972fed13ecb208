#include "deploy/ratio_role.h"

#include "base/log.h"
#include "base/prng.h"
#include "deploy/limits.h"
#include "discovery/limits.h"

namespace baton::deploy {

struct RatioRole::Pods {
  Pods(discovery::KubeClient& client, discovery::Resource resource, int port)
      : selector(resource.label_selector),
        store("pods", discovery::kPodsMax, [port](const Json& object) { return parse_model_pod(object, port); }),
        reflector(client, std::move(resource), store, secure_random_u64(), [] {}) {}
  std::string selector;
  discovery::KeptObjects<ModelPod> store;
  discovery::Reflector reflector;
};

RatioRole::RatioRole(Wiring wiring, std::string name, std::string deployment)
    : wiring_(std::move(wiring)),
      name_(std::move(name)),
      deployment_(std::move(deployment)),
      meter_(wiring_.window_ms),
      replicas_gauge_(wiring_.metrics.gauge("baton_ratio_replicas", "Replicas asked for.", {{"role", name_}})),
      ready_gauge_(wiring_.metrics.gauge("baton_ratio_ready", "Pods that are ready.", {{"role", name_}})),
      wanted_gauge_(wiring_.metrics.gauge("baton_ratio_wanted", "Workers that the load wants by the cost model; -1 = not known.",
                                          {{"role", name_}})),
      unread_gauge_(
          wiring_.metrics.gauge("baton_ratio_unread", "Ready pods whose metrics could not be read.", {{"role", name_}})),
      up_(steps("up")),
      down_(steps("down")) {}

Counter& RatioRole::steps(std::string_view direction) {
  return wiring_.metrics.counter("baton_ratio_steps", "Steps taken.", {{"role", name_}, {"direction", std::string(direction)}});
}

void RatioRole::stop() {
  if (pods_) pods_->reflector.cancel();
}

std::string RatioRole::scale_path() const {
  return cat("/apis/apps/v1/namespaces/", wiring_.ns, "/deployments/", deployment_, "/scale");
}

net::Task<Result<std::string>> RatioRole::ask(discovery::KubeClient::Ask ask, std::string_view resource, std::string_view verbs) {
  BATON_CO_TRY(net::Response response, co_await wiring_.client.fetch(ask));
  if (response.status / 100 == 2) co_return std::move(response.body);
  const Error error = discovery::status_error(response.status, response.body);
  if (error.code == Code::kNotFound) co_return fail(error.code, "no Deployment ", deployment_, " in namespace ", wiring_.ns);
  if (error.code != Code::kPermissionDenied) co_return within(deployment_, error);
  const discovery::Resource denied{.plural = std::string(resource), .ns = wiring_.ns};
  co_return fail(error.code, error.message, ". Fix: ", discovery::rbac_command(denied, verbs, wiring_.client.account()));
}

net::Task<Result<>> RatioRole::read_scale(net::Cancel* cancel) {
  discovery::KubeClient::Ask get;
  get.target = scale_path(), get.bytes_max = discovery::kAnswerBytesMax, get.cancel = cancel;
  BATON_CO_TRY(const std::string body, co_await ask(std::move(get), "deployments.apps/scale", "get,update"));
  auto scale = parse_scale(body);
  if (!scale) co_return within(deployment_, scale.error());
  scale_ = *std::move(scale);
  follow(scale_.selector);
  co_return Result<>();
}

void RatioRole::follow(const std::string& selector) {
  if (pods_ && pods_->selector == selector) return;
  stop();
  discovery::Resource resource{.version = "v1", .plural = "pods", .ns = wiring_.ns, .label_selector = selector};
  pods_ = std::make_shared<Pods>(wiring_.client, std::move(resource), wiring_.port);
  wiring_.io.spawn([pods = pods_] { return pods->reflector.run(); });
}

net::Task<Result<ServerNumbers>> RatioRole::scrape(const ModelPod& pod, net::Cancel* cancel) {
  net::Call call;
  call.host = pod.host, call.port = pod.port, call.target = "/metrics";
  call.connect_timeout = net::Millis(kScrapeConnectMs),
  call.first_byte_timeout = call.idle_timeout = net::Millis(kScrapeAnswerMs);
  call.body_bytes_max = kMetricsBytesMax, call.cancel = cancel;
  auto answer = co_await http_.fetch(std::move(call));
  if (!answer) co_return std::unexpected(answer.error());
  if (answer->status != 200) co_return fail(Code::kUnavailable, "/metrics answers ", answer->status);
  co_return read_server(pod.name, answer->body);
}

net::Task<Result<>> RatioRole::read_pods(net::Cancel* cancel) {
  if (pods_->reflector.state() != discovery::Reflector::State::kSynced) {
    const std::string why = pods_->reflector.last_error();
    co_return fail(Code::kUnavailable, "the pods of ", deployment_, " are not known yet", why.empty() ? "" : ": ", why);
  }
  std::vector<ModelPod> ready;  // a copy: the watch goes on meanwhile
  for (const auto& [name, pod] : pods_->store.all()) {
    if (pod.ready && !pod.ended) ready.push_back(pod);
  }
  std::vector<ServerNumbers> seen;
  busy_.clear();
  unread_ = 0, ready_ = ready.size();
  int silent = 0;
  std::string why;
  for (const ModelPod& pod : ready) {
    Result<ServerNumbers> numbers = fail(Code::kUnavailable, "others did not answer");
    if (silent < kScrapeSilentMax) numbers = co_await scrape(pod, cancel);
    if (numbers) {
      busy_[pod.name] = numbers->waiting + numbers->running;
      seen.push_back(*std::move(numbers));
      continue;
    }
    ++unread_, ++silent;
    if (why.empty()) why = cat(pod.name, " at ", pod.host, ":", pod.port, ": ", numbers.error().message);
  }
  if (std::exchange(unread_why_, why) != why && !why.empty())
    log_warn("a model server's numbers are missing, its role is left as it is", "role={} unread={} pod=\"{}\"", name_, unread_,
             why);
  meter_.look(wiring_.clock.now_ms(), std::move(seen));
  co_return Result<>();
}

std::optional<RoleLoad> RatioRole::load() const { return unread_ > 0 ? std::nullopt : meter_.load(); }

cost::RoleNow RatioRole::now(double wanted) const {
  cost::RoleNow out{.replicas = scale_.replicas, .wanted = wanted};
  for (const auto& [name, pod] : pods_->store.all()) out.leaving += pod.leaving && !pod.ended ? 1 : 0;
  out.starting = std::max(0, scale_.replicas - static_cast<int>(ready_));
  return out;
}

// Of the ready pods the idlest; a mark that an earlier step left on another is taken away. Without the right to mark, any pod
// goes, and drains as well.
net::Task<> RatioRole::name_first_to_go(net::Cancel* cancel) {
  const std::pair<const std::string, int>* idlest = nullptr;
  for (const auto& one : busy_) {
    if (idlest == nullptr || one.second < idlest->second) idlest = &one;
  }
  std::vector<std::pair<std::string, bool>> marks;
  if (idlest != nullptr) marks.emplace_back(idlest->first, true);
  for (const auto& [name, pod] : pods_->store.all()) {
    if (pod.first_to_go && !pod.leaving && (idlest == nullptr || name != idlest->first)) marks.emplace_back(name, false);
  }
  for (const auto& [pod, first] : marks) {
    discovery::KubeClient::Ask patch;
    patch.method = "PATCH", patch.content_type = "application/merge-patch+json";
    patch.target = cat("/api/v1/namespaces/", wiring_.ns, "/pods/", pod);
    patch.body = deletion_cost_patch(first), patch.bytes_max = discovery::kAnswerBytesMax, patch.cancel = cancel;
    if (auto done = co_await ask(std::move(patch), "pods", "patch"); !done) {
      log_warn("the idlest pod could not be named as the first to go", "pod={} error=\"{}\"", pod, done.error().message);
      co_return;
    }
  }
}

net::Task<Result<>> RatioRole::scale_to(int replicas, net::Cancel* cancel) {
  const bool down = replicas < scale_.replicas;
  if (down) co_await name_first_to_go(cancel);
  Scale wanted = scale_;
  wanted.replicas = replicas;
  discovery::KubeClient::Ask put;
  put.method = "PUT", put.target = scale_path(), put.body = scale_text(wiring_.ns, deployment_, wanted);
  put.bytes_max = discovery::kAnswerBytesMax, put.cancel = cancel;
  BATON_CO_OK(co_await ask(std::move(put), "deployments.apps/scale", "get,update"));
  (down ? down_ : up_).inc();
  log_info("scaled", "role={} deployment={} from={} to={}", name_, deployment_, scale_.replicas, replicas);
  scale_.replicas = replicas;
  replicas_gauge_.set(replicas);
  co_return Result<>();
}

void RatioRole::show(double wanted) {
  replicas_gauge_.set(scale_.replicas), ready_gauge_.set(static_cast<double>(ready_));
  wanted_gauge_.set(wanted), unread_gauge_.set(static_cast<double>(unread_));
}

}  // namespace baton::deploy
