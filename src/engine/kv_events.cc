#include "engine/kv_events.h"

#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <thread>
#include <zmq.hpp>

#include "base/log.h"
#include "route/kv_event_codec.h"

namespace baton::engine {
namespace {

constexpr auto kLinger = 200;  // ms, at the end

uint64_t short_hash(const kv::BlockHash& hash) {
  uint64_t v = 0;
  for (size_t i = hash.size() - 8; i < hash.size(); ++i) v = v << 8 | static_cast<uint8_t>(hash[i]);
  return v;
}

zmq::message_t big_endian(uint64_t v) {
  char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(v >> (56 - 8 * i));
  return zmq::message_t(bytes, sizeof bytes);
}
zmq::message_t message(std::string_view s) { return zmq::message_t(s.data(), s.size()); }

// Blocks that follow one another are one event.
route::KvEventBatch batch_of(std::vector<kv::CacheChange> changes, int block_tokens) {
  using Kind = kv::CacheChange::Kind;
  route::KvEventBatch batch;
  batch.timestamp_s = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  batch.rank = 0;
  for (const kv::CacheChange& c : changes) {
    const uint64_t hash = short_hash(c.hash);
    if (c.kind == Kind::kCleared) {
      batch.events.emplace_back(route::AllBlocksCleared{});
      continue;
    }
    if (c.kind == Kind::kRemoved) {
      auto* last = batch.events.empty() ? nullptr : std::get_if<route::BlockRemoved>(&batch.events.back());
      if (last == nullptr) last = &std::get<route::BlockRemoved>(batch.events.emplace_back(route::BlockRemoved{}));
      last->hashes.push_back(hash);
      continue;
    }
    auto* last = batch.events.empty() ? nullptr : std::get_if<route::BlockStored>(&batch.events.back());
    if (last == nullptr || !c.has_parent || last->hashes.back() != short_hash(c.parent)) {
      last = &std::get<route::BlockStored>(batch.events.emplace_back(route::BlockStored{}));
      last->block_tokens = block_tokens;
      last->has_parent = c.has_parent;
      last->parent = c.has_parent ? short_hash(c.parent) : 0;
      if (c.adapter) last->lora = c.adapter->name, last->lora_id = c.adapter->id;
      if (c.adapter || !c.salt.empty()) last->extra_keys.emplace_back();
    } else if (!last->extra_keys.empty()) {
      last->extra_keys.emplace_back();
    }
    if (c.adapter) last->extra_keys.back().push_back(c.adapter->name);
    if (!c.salt.empty()) last->extra_keys.back().push_back(c.salt);
    last->hashes.push_back(hash);
    last->tokens.insert(last->tokens.end(), c.tokens.begin(), c.tokens.end());
  }
  return batch;
}

// vLLM's rule.
bool binds(std::string_view endpoint) {
  return endpoint.find('*') != std::string_view::npos || endpoint.find("::") != std::string_view::npos ||
         endpoint.starts_with("ipc://") || endpoint.starts_with("inproc://");
}

}  // namespace

struct KvEventPublisher::Impl {
  Impl(const KvEventsConfig& c, int tokens) : config(c), block_tokens(tokens), context(1) {}

  void open() {
    events.emplace(context, zmq::socket_type::pub);
    events->set(zmq::sockopt::sndhwm, config.hwm);
    events->set(zmq::sockopt::linger, kLinger);
    events->set(zmq::sockopt::ipv6, true);
    if (binds(config.endpoint))
      events->bind(config.endpoint);
    else
      events->connect(config.endpoint);
    if (!config.replay_endpoint.empty()) {
      replay.emplace(context, zmq::socket_type::router);
      replay->set(zmq::sockopt::linger, 0);
      replay->set(zmq::sockopt::ipv6, true);
      replay->bind(config.replay_endpoint);
    }
    events_at = events->get(zmq::sockopt::last_endpoint);
    if (replay) replay_at = replay->get(zmq::sockopt::last_endpoint);
    for (auto* s : {&wake_in, &wake_out}) s->emplace(context, zmq::socket_type::pair);
    wake_in->bind("inproc://wake");
    wake_out->connect("inproc://wake");
  }

  void publish(std::vector<kv::CacheChange> changes) {
    const std::lock_guard lock(mutex);
    if (queue.size() >= static_cast<size_t>(config.queue_max)) {
      queue.pop_front();
      if (lost++ == 0)
        log_warn("KV events are not taken as fast as they come; who listens sees gaps", "queue={}", config.queue_max);
    }
    queue.emplace_back(next_seq++, std::move(changes));
    if (queue.size() == 1) (void)wake_out->send(zmq::message_t(), zmq::send_flags::dontwait);
  }

  void send_all() {
    for (;;) {
      std::pair<uint64_t, std::vector<kv::CacheChange>> item;
      {
        const std::lock_guard lock(mutex);
        if (queue.empty()) return;
        item = std::move(queue.front());
        queue.pop_front();
      }
      std::string payload = route::encode_kv_events(batch_of(std::move(item.second), block_tokens));
      (void)events->send(message(config.topic), zmq::send_flags::sndmore | zmq::send_flags::dontwait);
      (void)events->send(big_endian(item.first), zmq::send_flags::sndmore | zmq::send_flags::dontwait);
      (void)events->send(message(payload), zmq::send_flags::dontwait);
      if (!replay) continue;
      kept.emplace_back(item.first, std::move(payload));
      if (kept.size() > static_cast<size_t>(config.buffer_steps)) kept.pop_front();
    }
  }

  void answer_replay() {
    zmq::message_t id, empty, start;
    if (!replay->recv(id, zmq::recv_flags::dontwait)) return;
    const bool whole =
        id.more() && replay->recv(empty) && empty.more() && replay->recv(start) && !start.more() && start.size() == 8;
    if (!whole) return;
    uint64_t from = 0;
    for (size_t i = 0; i < 8; ++i) from = from << 8 | static_cast<const uint8_t*>(start.data())[i];
    const auto answer = [&](uint64_t seq, std::string_view payload) {
      const auto more = zmq::send_flags::sndmore | zmq::send_flags::dontwait;
      if (!replay->send(zmq::message_t(id.data(), id.size()), more)) return;
      (void)replay->send(zmq::message_t(), more);
      (void)replay->send(big_endian(seq), more);
      (void)replay->send(message(payload), zmq::send_flags::dontwait);
    };
    for (const auto& [seq, payload] : kept) {
      if (seq >= from) answer(seq, payload);
    }
    answer(~0ull, "");
  }

  void run() {
    while (!stopping) {
      try {
        std::vector<zmq::pollitem_t> items = {{wake_in->handle(), 0, ZMQ_POLLIN, 0}};
        if (replay) items.push_back({replay->handle(), 0, ZMQ_POLLIN, 0});
        zmq::poll(items, std::chrono::milliseconds(1'000));
        zmq::message_t drop;
        while (wake_in->recv(drop, zmq::recv_flags::dontwait)) {
        }
        send_all();
        if (items.size() > 1 && (items[1].revents & ZMQ_POLLIN) != 0) answer_replay();
      } catch (const zmq::error_t& e) {
        if (e.num() == ETERM) return;
        log_error("KV event socket failed", "error={}", e.what());
      }
    }
    send_all();
  }

  const KvEventsConfig config;
  const int block_tokens;
  zmq::context_t context;
  std::optional<zmq::socket_t> events, replay, wake_in, wake_out;  // the thread's, but wake_out: under mutex
  std::deque<std::pair<uint64_t, std::string>> kept;               // the thread's
  std::string events_at, replay_at;
  std::mutex mutex;
  std::deque<std::pair<uint64_t, std::vector<kv::CacheChange>>> queue;
  uint64_t next_seq = 0, lost = 0;
  std::atomic<bool> stopping{false};
  std::thread thread;
};

KvEventPublisher::KvEventPublisher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<KvEventPublisher>> KvEventPublisher::start(const KvEventsConfig& config, int block_tokens) {
  auto impl = std::make_unique<Impl>(config, block_tokens);
  try {
    impl->open();
  } catch (const zmq::error_t& e) {
    return fail(Code::kUnavailable, "KV events at ", config.endpoint, ": ", e.what());
  }
  Impl& i = *impl;
  i.thread = std::thread([&i] { i.run(); });
  return std::unique_ptr<KvEventPublisher>(new KvEventPublisher(std::move(impl)));
}

KvEventPublisher::~KvEventPublisher() {
  if (!impl_->thread.joinable()) return;
  impl_->stopping = true;
  {
    const std::lock_guard lock(impl_->mutex);
    (void)impl_->wake_out->send(zmq::message_t(), zmq::send_flags::dontwait);
  }
  impl_->thread.join();
}

void KvEventPublisher::publish(std::vector<kv::CacheChange> changes) { impl_->publish(std::move(changes)); }
std::string KvEventPublisher::endpoint() const { return impl_->events_at; }
std::string KvEventPublisher::replay_endpoint() const { return impl_->replay_at; }

}  // namespace baton::engine
