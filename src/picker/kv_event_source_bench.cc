// KV events from a real publisher over loopback TCP into the index: events a second, and the CPU of everything but the publisher's
// encoding (socket threads of both sides included). Aim: 200,000 a second on one core.
#include <benchmark/benchmark.h>

#include <ctime>
#include <thread>
#include <zmq.hpp>

#include "base/prng.h"
#include "picker/kv_event_source.h"
#include "route/kv_event_codec.h"

namespace {

using namespace baton;

constexpr int kMessages = 2000, kEvents = 64;

std::vector<std::string> messages() {
  std::vector<std::string> out;
  for (uint64_t m = 0; m < kMessages; ++m) {
    route::KvEventBatch batch;
    for (uint64_t e = 0; e < kEvents; ++e) {
      route::BlockStored stored;
      stored.hashes = {mix64(m << 8 | e)};
      for (uint64_t t = 0; t < 16; ++t) stored.tokens.push_back(static_cast<uint32_t>(Prng::at(m << 8 | e, t) % 128'000));
      batch.events.emplace_back(std::move(stored));
    }
    out.push_back(encode_kv_events(batch));
  }
  return out;
}

double cpu_s() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void BM_KvSource(benchmark::State& state) {
  const auto payloads = messages();
  double cpu = 0;
  int64_t events = 0;
  for (auto _ : state) {
    SteadyClock clock;
    route::KvEventIndex index({});
    zmq::context_t context(1);
    zmq::socket_t publisher(context, zmq::socket_type::xpub);
    publisher.set(zmq::sockopt::linger, 0);
    publisher.set(zmq::sockopt::sndhwm, 0);
    publisher.bind("tcp://127.0.0.1:*");
    const std::string at = publisher.get(zmq::sockopt::last_endpoint);
    std::atomic<int> applied{0};
    picker::KvEventSource source({.queue_messages = 0, .on_applied = [&](int) { ++applied, applied.notify_one(); }}, index, clock);
    if (!source.start()) std::abort();
    source.set_endpoints({{.slot = 1, .host = "127.0.0.1", .port = std::stoi(at.substr(at.rfind(':') + 1))}});
    zmq::message_t subscription;
    if (!publisher.recv(subscription)) std::abort();
    const double before = cpu_s();
    for (uint64_t m = 0; m < kMessages; ++m) {
      char seq[8];
      for (int i = 0; i < 8; ++i) seq[i] = static_cast<char>(m >> (56 - 8 * i));
      publisher.send(zmq::message_t("kv@p@m", 6), zmq::send_flags::sndmore);
      publisher.send(zmq::message_t(seq, 8), zmq::send_flags::sndmore);
      publisher.send(zmq::message_t(payloads[m].data(), payloads[m].size()), zmq::send_flags::none);
    }
    for (int n = applied; n < kMessages; n = applied) applied.wait(n);
    cpu += cpu_s() - before;
    events += kMessages * kEvents;
    source.stop();
  }
  state.counters["events/s of wall"] = benchmark::Counter(static_cast<double>(events), benchmark::Counter::kIsRate);
  state.counters["events/s of CPU"] = static_cast<double>(events) / cpu;
}
BENCHMARK(BM_KvSource)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
