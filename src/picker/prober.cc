#include "picker/prober.h"

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "net/pace.h"
#include "picker/limits.h"

namespace baton::picker {

struct Prober::Task {
  std::shared_ptr<EndpointState> state;
  net::Client client{2};
  int64_t health_ms = 0, models_ms = 0;  // when asked last
  int place = 0;                         // among all, for spreading them over the beats
  int timeouts = 0;
  bool had_models = false;
  enum class Filter : uint8_t { kTry, kWorks, kNone } filter = Filter::kTry;  // does the engine give chosen families alone?
};

std::string_view scrape_fault_name(ScrapeFault fault) {
  constexpr std::string_view kNames[kScrapeFaultKinds] = {"timeout", "connect", "status", "too_large", "no_numbers"};
  return kNames[static_cast<size_t>(fault)];
}

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

Result<std::map<std::string, std::shared_ptr<const MetricsScanner>>> make_scanners(const route::SourceParams& source) {
  std::map<std::string, std::shared_ptr<const MetricsScanner>> out;
  for (const char* engine : {"vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm", "triton"}) {
    BATON_TRY(MetricsScanner scanner, MetricsScanner::make(engine));
    out[engine] = std::make_shared<const MetricsScanner>(std::move(scanner));
  }
  for (const auto& custom : source.engines) {
    auto scanner = MetricsScanner::make(custom.name, custom);
    if (!scanner) return within(cat("engineConfigs ", custom.name), scanner.error());
    out[custom.name] = std::make_shared<const MetricsScanner>(*std::move(scanner));
  }
  return out;
}

const MetricsScanner& ProbePlan::scanner(const std::string& engine) const {
  auto at = scanners.find(engine.empty() ? default_engine : engine);
  if (at == scanners.end()) at = scanners.find(default_engine);
  if (at == scanners.end()) at = scanners.begin();
  return *at->second;
}

Prober::Prober(Pool& pool, const Clock& clock, Events events)
    : pool_(pool), clock_(clock), events_(std::move(events)), plan_(std::make_shared<const ProbePlan>()) {}

Prober::~Prober() { stop(); }

void Prober::stop() {
  stopping_ = true;
  thread_.stop();
}

void Prober::set_plan(std::shared_ptr<const ProbePlan> plan) {
  std::lock_guard lock(mutex_);
  plan_ = std::move(plan);
}

std::shared_ptr<const ProbePlan> Prober::plan() const {
  std::lock_guard lock(mutex_);
  return plan_;
}

void Prober::follow(std::shared_ptr<EndpointState> state) {
  thread_.spawn([this, state = std::move(state)]() -> net::Task<> { return run(state); });
}

net::Task<> Prober::run(std::shared_ptr<EndpointState> state) {
  Task task{.state = std::move(state), .place = places_++};
  while (!stopping_ && !task.state->removed) {
    const auto now = plan();
    const bool was = task.state->healthy;
    const bool is = co_await probe(task, *now);
    if (stopping_ || task.state->removed) break;
    // A request that failed to connect meanwhile knows better than a probe that began before it.
    if (!was || !is || task.state->healthy) task.state->healthy = is;
    if (was != is) {
      log_info(is ? "endpoint is up" : "endpoint is down", "endpoint={}", task.state->address);
      events_.changed(*task.state);
    }
    if (!is) task.had_models = false, task.filter = Task::Filter::kTry;  // it may come back as another model or version
    co_await pause(task, *now);
  }
}

net::Task<Result<net::Response>> Prober::get(Task& task, std::string_view target, int timeout_ms, const ProbePlan* metrics) {
  net::Call call;
  call.host = task.state->host;
  call.port = metrics != nullptr && metrics->port != 0 ? metrics->port : task.state->port;
  if (metrics != nullptr) call.tls = metrics->tls;
  call.target = target;
  call.connect_timeout = call.first_byte_timeout = call.idle_timeout = net::Millis(timeout_ms);
  call.body_bytes_max = kScrapeBytesMax;
  co_return co_await task.client.fetch(std::move(call));
}

// True if the endpoint can take requests.
net::Task<bool> Prober::probe(Task& task, const ProbePlan& plan) {
  EndpointState& state = *task.state;
  const int64_t now = clock_.now_ms();
  // Where something else says who is ready, /health only tells when an endpoint that refused connections is back.
  if (!state.healthy || (plan.health && now - task.health_ms >= kHealthEveryMs)) {
    const auto health = co_await get(task, "/health", kProbeTimeoutMs);
    if (!health) {
      const bool silent = health.error().code == Code::kDeadlineExceeded;
      co_return silent && ++task.timeouts < kProbeTimeoutsMax&& state.healthy;
    }
    task.timeouts = 0;
    if (plan.health && health->status != 200) co_return false;
    task.health_ms = now;
  }
  if (plan.models && (!task.had_models || now - task.models_ms >= kModelsEveryMs)) co_await ask_models(task);
  if (plan.metrics) co_await scrape(task, plan);
  co_return true;
}

net::Task<> Prober::ask_models(Task& task) {
  const auto models = co_await get(task, "/v1/models", kProbeTimeoutMs);
  if (models && models->status == 200) pool_.set_models(*task.state, read_model_cards(models->body));
  task.had_models = models.has_value();  // an endpoint without the route serves any model
  task.models_ms = clock_.now_ms();
}

net::Task<> Prober::scrape(Task& task, const ProbePlan& plan) {
  EndpointState& state = *task.state;
  const MetricsScanner& scanner = plan.scanner(state.engine);
  const uint64_t sent = state.sent;  // what is sent from here on cannot be in the numbers
  const bool filter = task.filter != Task::Filter::kNone;
  const std::string target = filter ? cat(plan.path, "?", scanner.query()) : plan.path;
  const auto answer = co_await get(task, target, kScrapeTimeoutMs, &plan);
  const bool ok = answer && answer->status == 200;
  Scanned got = ok ? scanner.scan(answer->body) : Scanned();
  if (filter && answer && !got.complete()) {
    task.filter = Task::Filter::kNone;  // no such option there, or it hides something: the whole text from now on
    co_return co_await scrape(task, plan);
  }
  if (!got.any()) {
    const Code code = answer ? Code::kOk : answer.error().code;
    events_.failed(state, code == Code::kDeadlineExceeded    ? ScrapeFault::kTimeout
                          : code == Code::kResourceExhausted ? ScrapeFault::kTooLarge
                          : code != Code::kOk                ? ScrapeFault::kConnect
                          : ok                               ? ScrapeFault::kNoNumbers
                                                             : ScrapeFault::kStatus);
    co_return;
  }
  state.waiting = got.waiting.value_or(0);
  state.running = got.running.value_or(0);
  state.kv_usage = got.kv_usage.value_or(0);
  state.kv_usage_max = got.kv_usage_max.value_or(0);
  if (got.block_tokens) state.block_tokens = *got.block_tokens;
  if (got.blocks_total) state.blocks_total = *got.blocks_total;
  if (plan.lora && got.lora) state.set_lora(*std::move(got.lora));
  state.sent_when_scraped = sent;
  state.scraped_ns = clock_.now_ns();
  events_.fresh(state);
}

// An idle or sleeping endpoint is looked at now and then: has it got work, or failed a request? Endpoints share beats, so that a
// hundred of them do not wake the thread two thousand times a second.
net::Task<> Prober::pause(const Task& task, const ProbePlan& plan) {
  const EndpointState& state = *task.state;
  const bool healthy = state.healthy;
  const bool busy = state.inflight_requests > 0 || state.running > 0 || state.waiting > 0;
  const int64_t busy_ms = plan.metrics ? std::max<int64_t>(1, plan.interval_ms) : kHealthEveryMs;
  const int64_t idle_ms = plan.metrics ? std::max(plan.idle_ms, busy_ms) : kHealthEveryMs;
  const int64_t total = !healthy ? kProbeDownMs : busy ? busy_ms : idle_ms;
  const int64_t step = std::min<int64_t>(total, kIdleLookMs), beats = std::max<int64_t>(1, step / kBeatMs);
  for (int64_t waited = 0; waited < total && !stopping_ && !state.removed; waited += step) {
    co_await net::sleep_until_beat(net::Millis(step), net::Millis(task.place % beats * kBeatMs));
    if (healthy && (!state.healthy || (!busy && plan.metrics && state.inflight_requests > 0))) co_return;
  }
}

}  // namespace baton::picker
