#include "gateway/prober.h"

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "gateway/limits.h"
#include "gateway/metrics_scan.h"

namespace baton::gateway {

struct Prober::Task {
  std::shared_ptr<EndpointState> state;
  net::Client client{2};
  int64_t health_ms = 0, models_ms = 0;  // when asked last
  int timeouts = 0;
  bool had_models = false;
};

std::vector<ModelCard> read_model_cards(std::string_view body) {
  std::vector<ModelCard> cards;
  const auto root = parse_json(body, {.bytes_max = kScrapeBytesMax, .nodes_max = 1 << 16, .depth_max = 16});
  const Json* data = root ? root->find("data") : nullptr;
  if (data == nullptr || !data->is_array()) return cards;
  for (const Json& card : data->items) {
    const Json* id = card.find("id");
    if (id == nullptr || !id->is_string() || cards.size() >= kModelsPerEndpointMax) continue;
    cards.push_back({id->text, std::string(card.raw(body))});
  }
  return cards;
}

Prober::Prober(Pool& pool, const Clock& clock, net::Millis interval) : pool_(pool), clock_(clock), interval_(interval) {}

Prober::~Prober() { stop(); }

void Prober::stop() {
  stopping_ = true;
  thread_.stop();
}

void Prober::follow(std::shared_ptr<EndpointState> state) {
  thread_.spawn([this, state = std::move(state)]() -> net::Task<> { return run(state); });
}

net::Task<> Prober::run(std::shared_ptr<EndpointState> state) {
  Task task{.state = std::move(state)};
  while (!stopping_ && !task.state->removed) {
    const bool was = task.state->healthy;
    const bool is = co_await probe(task);
    if (stopping_) break;
    task.state->healthy = is;
    if (was != is) log_info(is ? "endpoint is up" : "endpoint is down", "endpoint={}", task.state->address);
    if (!is) task.had_models = false;  // it may come back as another model
    co_await pause(task);
  }
  task.state->healthy = false;
}

net::Task<Result<net::Response>> Prober::get(Task& task, std::string_view target) {
  net::Call call;
  call.host = task.state->host;
  call.port = task.state->port;
  call.target = target;
  call.connect_timeout = call.first_byte_timeout = call.idle_timeout = net::Millis(kProbeTimeoutMs);
  call.body_bytes_max = kScrapeBytesMax;
  co_return co_await task.client.fetch(std::move(call));
}

// True if the endpoint can take requests.
net::Task<bool> Prober::probe(Task& task) {
  EndpointState& state = *task.state;
  const int64_t now = clock_.now_ms();
  if (!state.healthy || now - task.health_ms >= kHealthEveryMs) {
    const auto health = co_await get(task, "/health");
    if (!health) {
      const bool silent = health.error().code == Code::kDeadlineExceeded;
      co_return silent && ++task.timeouts < kProbeTimeoutsMax&& state.healthy;
    }
    task.timeouts = 0;
    if (health->status != 200) co_return false;
    task.health_ms = now;
  }
  if (!task.had_models || now - task.models_ms >= kModelsEveryMs) {
    const auto models = co_await get(task, "/v1/models");
    if (models && models->status == 200) pool_.set_models(state, read_model_cards(models->body));
    task.had_models = models.has_value();  // an endpoint without the route serves any model
    task.models_ms = now;
  }
  const auto metrics = co_await get(task, "/metrics");
  if (metrics && metrics->status == 200) {
    const Scraped scraped = scan_metrics(metrics->body);
    if (scraped.waiting || scraped.running || scraped.kv_usage) {
      state.waiting = scraped.waiting.value_or(0);
      state.running = scraped.running.value_or(0);
      state.kv_usage = scraped.kv_usage.value_or(0);
      state.scraped_ns = clock_.now_ns();
    }
  }
  co_return true;
}

// In short steps, so that an endpoint that gets busy or fails a request meanwhile is looked at soon.
net::Task<> Prober::pause(const Task& task) {
  const EndpointState& state = *task.state;
  const bool healthy = state.healthy;
  const int64_t total = healthy ? kProbeIdleMs : kProbeDownMs;
  const int64_t step = std::clamp<int64_t>(interval_.count(), 1, total);
  for (int64_t waited = 0; waited < total && !stopping_ && !state.removed; waited += step) {
    co_await net::sleep_for(net::Millis(step));
    if (healthy && (!state.healthy || state.inflight_requests > 0)) co_return;
  }
}

}  // namespace baton::gateway
