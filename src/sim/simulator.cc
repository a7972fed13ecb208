#include "sim/simulator.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <queue>
#include <unordered_map>

#include "base/prng.h"
#include "route/prefix_index.h"
#include "sim/worker.h"

namespace baton::sim {
namespace {

constexpr int kBlockTokens = 16;

struct Flight {  // one request on its way
  size_t session = 0, turn = 0;
  int decode = -1, prefill = -1;
  int prompt = 0, output = 0, output_max = 0;
  int64_t uncached_decode = 0, uncached_prefill = 0;
  double sent_us = 0, first_us = 0, last_us = 0;
  bool prompt_done = false;
};

enum class Kind : uint8_t { kArrival, kReach, kHandOver, kStep, kFetched, kScrape, kRatio };

struct Event {
  double at_us = 0;
  uint64_t order = 0;
  Kind kind = Kind::kArrival;
  uint64_t id = 0;  // request; for kArrival session; for kStep worker
  int a = 0, b = 0;
  bool operator>(const Event& other) const { return at_us != other.at_us ? at_us > other.at_us : order > other.order; }
};

std::vector<uint64_t> chain_of(const std::vector<int32_t>& tokens) {
  route::ChainHasher hasher(1, "sim", kBlockTokens * sizeof(int32_t));
  hasher.feed({reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)});
  return hasher.chain();
}

class Simulation {
 public:
  Simulation(const SimConfig& config, const std::vector<Session>& workload);
  SimReport run();

 private:
  void at(double us, Kind kind, uint64_t id, int a = 0, int b = 0) { events_.push({us, order_++, kind, id, a, b}); }
  void handle(const Event& event);
  void arrive(size_t session, size_t turn);
  sched::NewRequest new_request(uint64_t id, const Flight& flight, int max_tokens) const;
  void reach_prefill(uint64_t id);
  void reach_decode(uint64_t id);
  void scrape();
  void kick(int worker);
  void token(uint64_t id, int worker, int output);
  void done(uint64_t id, int worker);
  void prompt_computed(Flight& flight);
  void look_at_ratio();
  cost::RoleNow role_now(route::Role role) const;
  void change_role(route::Role from, route::Role to);
  void bring_back();
  SimWorker::Callbacks callbacks(int worker);
  SimReport report();

  const SimConfig& config_;
  const std::vector<Session>& workload_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::vector<route::Endpoint> endpoints_;
  std::vector<route::Load> loads_;
  route::PrefixIndex index_;
  Prng prng_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  uint64_t order_ = 0, next_id_ = 1;
  double now_us_ = 0, scraped_us_ = 0;
  int open_ = 0;
  std::vector<std::vector<int32_t>> history_;  // by session
  std::unordered_map<uint64_t, Flight> flights_;
  std::vector<double> ttft_, tpot_, e2e_;
  int64_t output_tokens_ = 0;
  SimReport report_;
  // With a ratio controller: which role a worker is on its way to (kBoth: it stays what it is), and when it will be there.
  std::optional<RatioSim> ratio_;
  RatioCounts counts_;
  std::vector<route::Role> becomes_;
  std::vector<double> back_us_;  // < 0: it still drains
  struct Ended {                 // a worker before its change of role
    route::Role role;
    std::unique_ptr<SimWorker> worker;
  };
  std::vector<Ended> ended_;
};

Simulation::Simulation(const SimConfig& config, const std::vector<Session>& workload)
    : config_(config), workload_(workload), prng_(config.seed), history_(workload.size()) {
  for (size_t i = 0; i < config.workers.size(); ++i) {
    const WorkerSpec& spec = config.workers[i];
    workers_.push_back(std::make_unique<SimWorker>(spec.cost, spec.kv_blocks, config.scheduler, callbacks(static_cast<int>(i))));
    route::Endpoint endpoint{.host = cat("w", i), .port = 8000, .role = spec.role, .slot = static_cast<int>(i)};
    endpoint.address = route::host_port(endpoint.host, endpoint.port);
    endpoints_.push_back(std::move(endpoint));
    route::Load load;
    load.block_tokens = kBlockTokens;
    load.blocks_total = spec.kv_blocks;
    loads_.push_back(load);
  }
  for (size_t s = 0; s < workload.size(); ++s) at(workload[s].arrival_us, Kind::kArrival, s, 0);
  at(0, Kind::kScrape, 0);
  becomes_.resize(workers_.size(), route::Role::kBoth), back_us_.resize(workers_.size(), 0);
  if (!config.ratio) return;
  ratio_.emplace(*config.ratio);
  at(0, Kind::kRatio, 0);
}

SimWorker::Callbacks Simulation::callbacks(int worker) {
  return {.token_of = [this](uint64_t id, int position) { return answer_token(flights_.at(id).session, position); },
          .on_token = [this, worker](uint64_t id, int output) { token(id, worker, output); },
          .on_fetch =
              [this, worker](const sched::RemoteFetch& fetch) {
                const Flight& flight = flights_.at(fetch.id);
                const int64_t bytes = int64_t{fetch.n_tokens} * config_.workers[static_cast<size_t>(flight.prefill)].cost.kv_bytes_per_token;
                // No tokens: the decode worker held the whole prompt and runs already; only the prefill side is to be told.
                const int valid = fetch.n_tokens > 0 ? fetch.first_token + fetch.n_tokens : 0;
                at(now_us_ + config_.link.transfer_us(bytes), Kind::kFetched, fetch.id, worker, valid);
              },
          .on_done = [this, worker](uint64_t id) { done(id, worker); }};
}

void Simulation::scrape() {
  for (size_t i = 0; i < workers_.size(); ++i) {
    loads_[i].waiting = workers_[i]->waiting();
    loads_[i].running = workers_[i]->running();
    loads_[i].kv_usage = static_cast<float>(workers_[i]->kv_usage());
  }
  scraped_us_ = now_us_;
}

void Simulation::arrive(size_t session, size_t turn) {
  const Turn& t = workload_[session].turns[turn];
  std::vector<int32_t>& history = history_[session];
  history.insert(history.end(), t.fresh.begin(), t.fresh.end());
  ++report_.requests;
  const auto age = static_cast<int64_t>((now_us_ - scraped_us_) / 1'000);
  for (route::Load& load : loads_) load.age_ms = age;
  const std::vector<uint64_t> chain = chain_of(history);
  const route::PrefixMatch match = index_.match(chain);
  route::Inquiry inquiry;
  inquiry.prompt_tokens = static_cast<int64_t>(history.size());
  inquiry.output_tokens = t.output_tokens;
  inquiry.blocks_total = chain.size();
  inquiry.block_tokens = kBlockTokens;
  inquiry.match = &match;
  const auto verdict = route::decide({endpoints_, loads_}, inquiry, *config_.plan, prng_);
  if (!verdict) {
    ++report_.refused;
    return;
  }
  const uint64_t id = next_id_++;
  Flight flight{.session = session, .turn = turn, .prompt = static_cast<int>(history.size()), .output_max = t.output_tokens};
  flight.sent_us = now_us_;
  flight.decode = verdict->primary.ranked.index[0];
  index_.record(chain, flight.decode);
  loads_[static_cast<size_t>(flight.decode)].inflight_requests += 1;
  if (verdict->prefill.ranked.count > 0) {
    flight.prefill = verdict->prefill.ranked.index[0];
    flight.uncached_prefill = inquiry.prompt_tokens - verdict->prefill.cached_tokens;
    index_.record(chain, flight.prefill);
    loads_[static_cast<size_t>(flight.prefill)].inflight_requests += 1;
    loads_[static_cast<size_t>(flight.prefill)].inflight_tokens += flight.uncached_prefill;
    ++report_.remote;
  } else {
    flight.uncached_decode = inquiry.prompt_tokens - verdict->primary.cached_tokens;
    loads_[static_cast<size_t>(flight.decode)].inflight_tokens += flight.uncached_decode;
  }
  flights_.emplace(id, flight);
  report_.max_streams = std::max(report_.max_streams, ++open_);
  at(now_us_ + config_.dispatch_us, Kind::kReach, id);
}

sched::NewRequest Simulation::new_request(uint64_t id, const Flight& flight, int max_tokens) const {
  sched::NewRequest out;
  out.id = id;
  out.prompt = history_[flight.session];
  out.max_tokens = max_tokens;
  out.arrival = static_cast<int64_t>(order_);
  return out;
}

void Simulation::reach_prefill(uint64_t id) {
  const Flight& flight = flights_.at(id);
  sched::NewRequest request = new_request(id, flight, 1);
  request.retain_on_finish = true;
  BATON_CHECK(workers_[static_cast<size_t>(flight.prefill)]->add(std::move(request)).has_value());
  kick(flight.prefill);
}

void Simulation::reach_decode(uint64_t id) {
  const Flight& flight = flights_.at(id);
  sched::NewRequest request = new_request(id, flight, flight.output_max);
  if (flight.prefill >= 0) request.remote_tokens = flight.prompt;
  BATON_CHECK(workers_[static_cast<size_t>(flight.decode)]->add(std::move(request)).has_value());
  kick(flight.decode);
}

void Simulation::prompt_computed(Flight& flight) {
  if (flight.prompt_done) return;
  flight.prompt_done = true;
  counts_.prompts += 1;
  loads_[static_cast<size_t>(flight.decode)].inflight_tokens -= flight.uncached_decode;
  if (flight.prefill < 0) return;
  loads_[static_cast<size_t>(flight.prefill)].inflight_tokens -= flight.uncached_prefill;
  loads_[static_cast<size_t>(flight.prefill)].inflight_requests -= 1;
}

void Simulation::token(uint64_t id, int worker, int output) {
  Flight& flight = flights_.at(id);
  if (worker == flight.prefill && flight.prefill != flight.decode) return;  // the client gets it with the hand-over
  if (output == 1) {
    flight.first_us = now_us_;
    prompt_computed(flight);
  }
  flight.output = output;
  counts_.answer_tokens += 1;
  flight.last_us = now_us_;
}

void Simulation::done(uint64_t id, int worker) {
  Flight& flight = flights_.at(id);
  if (worker == flight.prefill && flight.prefill != flight.decode) return at(now_us_, Kind::kHandOver, id);
  prompt_computed(flight);
  loads_[static_cast<size_t>(flight.decode)].inflight_requests -= 1;
  ttft_.push_back((flight.first_us - flight.sent_us) * 1e-3);
  e2e_.push_back((flight.last_us - flight.sent_us) * 1e-3);
  if (flight.output > 1) tpot_.push_back((flight.last_us - flight.first_us) * 1e-3 / (flight.output - 1));
  output_tokens_ += flight.output;
  counts_.answers += 1;
  --open_;
  const Session& session = workload_[flight.session];
  if (flight.turn + 1 < session.turns.size()) {
    std::vector<int32_t>& history = history_[flight.session];
    for (int i = 0; i < flight.output; ++i) history.push_back(answer_token(flight.session, flight.prompt + i));
    at(now_us_ + session.think_us, Kind::kArrival, flight.session, static_cast<int>(flight.turn) + 1);
  }
  report_.duration_s = now_us_ * 1e-6;
  flights_.erase(id);
}

void Simulation::kick(int worker) {
  if (const auto us = workers_[static_cast<size_t>(worker)]->start_us()) at(now_us_ + *us, Kind::kStep, static_cast<uint64_t>(worker));
}

void Simulation::handle(const Event& event) {
  switch (event.kind) {
    case Kind::kArrival:
      return arrive(event.id, static_cast<size_t>(event.a));
    case Kind::kReach:
      return flights_.at(event.id).prefill >= 0 ? reach_prefill(event.id) : reach_decode(event.id);
    case Kind::kHandOver:
      return reach_decode(event.id);
    case Kind::kStep:
      workers_[event.id]->finish_step();
      return kick(static_cast<int>(event.id));
    case Kind::kFetched: {
      const Flight flight = flights_.at(event.id);
      workers_[static_cast<size_t>(flight.prefill)]->release(event.id);
      if (event.b > 0) workers_[static_cast<size_t>(event.a)]->fetched(event.id, event.b, answer_token(flight.session, flight.prompt));
      kick(flight.prefill);  // its blocks are free: somebody may have waited for them
      return kick(event.a);
    }
    case Kind::kRatio:
      look_at_ratio();
      if (!flights_.empty() || events_.size() > 1) at(now_us_ + config_.ratio->interval_s * 1e6, Kind::kRatio, 0);
      return;
    case Kind::kScrape:
      bring_back();
      scrape();
      if (!flights_.empty() || events_.size() > (ratio_ ? 1U : 0U)) at(now_us_ + config_.scrape_ms * 1e3, Kind::kScrape, 0);
      return;
  }
}

// ---- the ratio of the roles

cost::RoleNow Simulation::role_now(route::Role role) const {
  cost::RoleNow out;
  for (size_t i = 0; i < workers_.size(); ++i) {
    const bool changes = becomes_[i] != route::Role::kBoth;
    out.replicas += (changes ? becomes_[i] : endpoints_[i].role) == role ? 1 : 0;
    out.starting += changes && becomes_[i] == role ? 1 : 0;
    out.leaving += changes && endpoints_[i].role == role && back_us_[i] < 0 ? 1 : 0;
  }
  return out;
}

void Simulation::look_at_ratio() {
  counts_.at_s = now_us_ * 1e-6;
  counts_.computed_tokens = counts_.prompts_waiting = counts_.streams_waiting = counts_.context = 0;
  double held = 0, streams = 0;
  for (const Ended& one : ended_) counts_.computed_tokens += static_cast<double>(one.worker->computed_tokens());
  for (size_t i = 0; i < workers_.size(); ++i) {
    const SimWorker& worker = *workers_[i];
    const bool prefills = endpoints_[i].role == route::Role::kPrefill;
    counts_.computed_tokens += static_cast<double>(worker.computed_tokens());
    (prefills ? counts_.prompts_waiting : counts_.streams_waiting) += worker.waiting();
    if (!prefills) held += worker.kv_usage() * config_.workers[i].kv_blocks * kBlockTokens, streams += worker.running();
  }
  if (streams > 0) counts_.context = held / streams;
  const cost::RoleNow prefill = role_now(route::Role::kPrefill), decode = role_now(route::Role::kDecode);
  const cost::RatioStep next = ratio_->look(counts_, prefill, decode);
  for (int i = prefill.replicas; i < next.prefill; ++i) change_role(route::Role::kDecode, route::Role::kPrefill);
  for (int i = decode.replicas; i < next.decode; ++i) change_role(route::Role::kPrefill, route::Role::kDecode);
}

// The idlest worker that does `from` goes.
void Simulation::change_role(route::Role from, route::Role to) {
  size_t idlest = workers_.size();
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (endpoints_[i].role != from || becomes_[i] != route::Role::kBoth) continue;
    if (idlest == workers_.size() || loads_[i].inflight_requests < loads_[idlest].inflight_requests) idlest = i;
  }
  BATON_CHECK(idlest < workers_.size());
  becomes_[idlest] = to, back_us_[idlest] = -1;
  loads_[idlest].healthy = false;
  ++report_.role_changes;
}

// A worker that has drained is away for start_s, then another process with another role.
void Simulation::bring_back() {
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (becomes_[i] == route::Role::kBoth) continue;
    if (back_us_[i] < 0 && loads_[i].inflight_requests == 0) back_us_[i] = now_us_ + config_.ratio->start_s * 1e6;
    if (back_us_[i] < 0 || now_us_ < back_us_[i]) continue;
    const WorkerSpec& spec = config_.workers[i];
    ended_.push_back({endpoints_[i].role, std::move(workers_[i])});
    workers_[i] = std::make_unique<SimWorker>(spec.cost, spec.kv_blocks, config_.scheduler, callbacks(static_cast<int>(i)));
    index_.forget(static_cast<int>(i));
    endpoints_[i].role = std::exchange(becomes_[i], route::Role::kBoth);
    loads_[i].healthy = true;
  }
}

SimReport Simulation::run() {
  while (!events_.empty() && events_.top().at_us <= config_.horizon_s * 1e6) {
    const Event event = events_.top();
    events_.pop();
    now_us_ = event.at_us;
    handle(event);
  }
  return report();
}

SimReport Simulation::report() {
  SimReport out = report_;
  out.unfinished = static_cast<int>(flights_.size());
  out.ttft_ms = percentiles(std::move(ttft_));
  out.tpot_ms = percentiles(std::move(tpot_));
  const auto finished = static_cast<double>(e2e_.size());
  out.e2e_ms = percentiles(std::move(e2e_));
  if (out.duration_s > 0) {
    out.output_tokens_per_s = static_cast<double>(output_tokens_) / out.duration_s;
    out.requests_per_s = finished / out.duration_s;
  }
  int64_t prompt = 0, cached = 0;
  double busiest = 0;
  for (const auto& [role, worker] : ended_) {
    if (role != route::Role::kDecode) prompt += worker->prompt_tokens(), cached += worker->cached_tokens();
    out.computed_tokens += worker->computed_tokens();
  }
  for (size_t i = 0; i < workers_.size(); ++i) {
    const SimWorker& worker = *workers_[i];
    if (endpoints_[i].role != route::Role::kDecode) prompt += worker.prompt_tokens(), cached += worker.cached_tokens();
    out.computed_tokens += worker.computed_tokens();
    double sum = 0;
    int same = 0;
    for (size_t j = 0; j < workers_.size(); ++j) {
      if (endpoints_[j].role != endpoints_[i].role) continue;
      sum += workers_[j]->busy_us();
      ++same;
    }
    if (sum > 0) busiest = std::max(busiest, worker.busy_us() / (sum / same));
  }
  out.imbalance = busiest;
  out.hit_rate = prompt > 0 ? static_cast<double>(cached) / static_cast<double>(prompt) : 0;
  return out;
}

}  // namespace

Percentiles percentiles(std::vector<double> values) {
  Percentiles out;
  if (values.empty()) return out;
  std::ranges::sort(values);
  auto at = [&](double q) {
    const double x = q * static_cast<double>(values.size() - 1);
    const auto lo = static_cast<size_t>(x);
    const size_t hi = std::min(lo + 1, values.size() - 1);
    return values[lo] + (x - static_cast<double>(lo)) * (values[hi] - values[lo]);
  };
  out.p50 = at(0.5), out.p95 = at(0.95), out.p99 = at(0.99);
  for (double v : values) out.mean += v / static_cast<double>(values.size());
  return out;
}

SimReport simulate(const SimConfig& config, const std::vector<Session>& workload) {
  BATON_CHECK(!config.workers.empty() && config.plan != nullptr && config.workers.size() <= route::kEndpointsMax);
  return Simulation(config, workload).run();
}

}  // namespace baton::sim
