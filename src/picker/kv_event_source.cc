#include "picker/kv_event_source.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <zmq.hpp>

#include "base/log.h"
#include "route/endpoint.h"
#include "route/kv_event_codec.h"

namespace baton::picker {
namespace {

constexpr int kRoundMessages = 256;   // of one endpoint before the others have their turn
constexpr int64_t kExpireEveryMs = 100;

std::string_view view(const zmq::message_t& m) { return {static_cast<const char*>(m.data()), m.size()}; }
std::optional<uint64_t> sequence(std::string_view bytes) {
  if (bytes.size() != 8) return std::nullopt;
  uint64_t v = 0;
  for (const char c : bytes) v = v << 8 | static_cast<uint8_t>(c);
  return v;
}

// All frames of one message; empty if there is none. At most eight are kept.
std::vector<zmq::message_t> receive(zmq::socket_t& socket) {
  std::vector<zmq::message_t> frames;
  for (;;) {
    zmq::message_t frame;
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) return frames;
    const bool more = frame.more();
    if (frames.size() < 8) frames.push_back(std::move(frame));
    if (!more) return frames;
  }
}

struct Waiting {
  uint64_t seq;
  std::string model, payload;
};

// One publisher: an endpoint's own, or one topic of the shared socket.
struct Stream {
  KvEndpoint endpoint;
  std::optional<zmq::socket_t> events, replay;
  std::optional<uint64_t> next;   // sequence expected
  std::optional<uint64_t> heard;  // last sequence on the events socket, where they only grow
  bool replaying = false;
  uint64_t messages = 0;
  int64_t replay_until_ms = 0;
  std::deque<Waiting> waiting;
};

}  // namespace

struct KvEventSource::Impl {
  Impl(KvSourceOptions o, route::KvEventIndex& i, const Clock& c) : options(std::move(o)), index(i), clock(c), context(1) {
    context.set(zmq::ctxopt::max_sockets, 4 * route::kEndpointsMax);
  }

  // ---- the source's thread
  void configure(zmq::socket_t& socket) const {
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::ipv6, true);
    socket.set(zmq::sockopt::rcvhwm, options.queue_messages);
    socket.set(zmq::sockopt::maxmsgsize, static_cast<int64_t>(route::kKvPayloadBytesMax));
    socket.set(zmq::sockopt::reconnect_ivl, 100);
    socket.set(zmq::sockopt::reconnect_ivl_max, 5'000);
    socket.set(zmq::sockopt::tcp_keepalive, 1);
  }

  void connect(Stream& stream) {
    stream.events.emplace(context, zmq::socket_type::sub);
    configure(*stream.events);
    stream.events->set(zmq::sockopt::subscribe, options.topic_filter);
    stream.events->connect("tcp://" + route::host_port(stream.endpoint.host, stream.endpoint.port));
    if (stream.endpoint.replay_port > 0) ask_replay(stream, 0);
  }

  void ask_replay(Stream& stream, uint64_t from) {
    if (!stream.replay) {
      stream.replay.emplace(context, zmq::socket_type::dealer);
      configure(*stream.replay);
      stream.replay->connect("tcp://" + route::host_port(stream.endpoint.host, stream.endpoint.replay_port));
    }
    char start[8];
    for (int i = 0; i < 8; ++i) start[i] = static_cast<char>(from >> (56 - 8 * i));
    (void)stream.replay->send(zmq::message_t(), zmq::send_flags::sndmore | zmq::send_flags::dontwait);
    (void)stream.replay->send(zmq::message_t(start, sizeof start), zmq::send_flags::dontwait);
    stream.replaying = true;
    stream.replay_until_ms = clock.now_ms() + options.replay_timeout_ms;
    ++replays;
  }

  void adopt(std::vector<KvEndpoint> wanted) {
    for (auto it = streams.begin(); it != streams.end();) {
      const auto same = std::ranges::find(wanted, (*it)->endpoint);
      if (same != wanted.end()) {
        wanted.erase(same);
        ++it;
      } else {
        index.forget((*it)->endpoint.slot);
        it = streams.erase(it);
      }
    }
    for (KvEndpoint& endpoint : wanted) {
      auto stream = std::make_unique<Stream>();
      stream->endpoint = std::move(endpoint);
      try {
        if (options.shared_endpoint.empty()) connect(*stream);
      } catch (const zmq::error_t& e) {
        ++socket_errors;
        {
          const std::lock_guard lock(mutex);
          ++connect_errors_of[stream->endpoint.address];
        }
        log_warn("KV events of an endpoint cannot be had", "endpoint={} error={}", stream->endpoint.host, e.what());
        stream->events.reset();
      }
      streams.push_back(std::move(stream));
    }
    subscribers = options.shared_endpoint.empty() ? streams.size() : 1;
  }

  Stream* stream_of(std::string_view pod) {
    for (const auto& stream : streams) {
      const KvEndpoint& e = stream->endpoint;
      std::string_view name = e.name;  // "<namespace>/<pod>-rank-<i>"
      if (const size_t slash = name.find('/'); slash != std::string_view::npos) name.remove_prefix(slash + 1);
      if (const size_t rank = name.rfind("-rank-"); rank != std::string_view::npos) name = name.substr(0, rank);
      if (pod == e.address || pod == e.host || (!pod.empty() && (pod == e.name || pod == name))) return stream.get();
    }
    return nullptr;
  }
  // A pod that publishes for several of its data-parallel ranks says which in the batch.
  int slot_for(const Stream& stream, int rank) const {
    if (rank < 0 || rank == stream.endpoint.rank) return stream.endpoint.slot;
    for (const auto& other : streams) {
      if (other->endpoint.host == stream.endpoint.host && other->endpoint.rank == rank) return other->endpoint.slot;
    }
    return stream.endpoint.slot;
  }

  void apply(Stream& stream, std::string_view model, uint64_t seq, std::string_view payload) {
    stream.next = seq + 1;
    const auto batch = route::decode_kv_events(payload);
    if (!batch) {
      ++decode_errors;
      return;
    }
    const int slot = slot_for(stream, batch->rank);
    index.apply(slot, model.empty() ? std::string_view(stream.endpoint.model) : model, *batch);
    ++applied;
    if (options.on_applied) options.on_applied(slot);
  }

  void wait(Stream& stream, std::string_view model, uint64_t seq, std::string_view payload) {
    if (stream.waiting.size() >= options.waiting_messages_max) {
      stream.waiting.pop_front();  // the newer ones; what is missing shows as a gap, which is counted
      ++dropped;
    }
    stream.waiting.push_back({seq, std::string(model), std::string(payload)});
  }

  void live(Stream& stream, std::string_view model, uint64_t seq, std::string_view payload) {
    ++messages;
    ++stream.messages;
    const bool grew = !stream.heard || seq > *stream.heard;
    stream.heard = seq;
    if (stream.replaying && grew) return wait(stream, model, seq, payload);
    const uint64_t expected = stream.next.value_or(seq);
    if (grew && seq < expected) return;  // a replay was faster
    if (!grew) {                         // it counts from the beginning again
      ++restarts;
      stream.waiting.clear();
      index.forget(stream.endpoint.slot);
      stream.next = 0;
      if (stream.endpoint.replay_port > 0) {
        stream.replay.reset();  // what the old one still answers is of no use
        wait(stream, model, seq, payload);
        return ask_replay(stream, 0);
      }
    } else if (seq > expected) {
      ++gaps;
      if (stream.endpoint.replay_port > 0) {
        wait(stream, model, seq, payload);
        return ask_replay(stream, expected);
      }
      lost += seq - expected;
    }
    apply(stream, model, seq, payload);
  }

  void replayed(Stream& stream, const std::vector<zmq::message_t>& frames) {
    if (frames.size() < 2 || !stream.replaying) return;
    const auto seq = sequence(view(frames[frames.size() - 2]));
    if (!seq || *seq == ~0ull) return end_replay(stream);
    if (stream.next && *seq < *stream.next) return;
    if (stream.next && *seq > *stream.next) lost += *seq - *stream.next;  // the engine has forgotten them
    apply(stream, {}, *seq, view(frames.back()));
    stream.replay_until_ms = clock.now_ms() + options.replay_timeout_ms;
  }

  void end_replay(Stream& stream) {
    stream.replaying = false;
    stream.replay.reset();
    const std::deque<Waiting> waiting = std::exchange(stream.waiting, {});
    for (const Waiting& m : waiting) {
      if (stream.next && m.seq < *stream.next) continue;  // came both ways
      if (stream.next && m.seq > *stream.next) lost += m.seq - *stream.next;
      apply(stream, m.model, m.seq, m.payload);
    }
  }

  void drain(Stream* own, zmq::socket_t& socket) {
    for (int n = 0; n < kRoundMessages; ++n) {
      const std::vector<zmq::message_t> frames = receive(socket);
      if (frames.empty()) return;
      const auto seq = frames.size() == 3 ? sequence(view(frames[1])) : std::nullopt;
      if (!seq) {
        ++decode_errors;
        continue;
      }
      const route::KvTopic topic = route::parse_kv_topic(view(frames[0]));
      Stream* stream = own != nullptr ? own : stream_of(topic.pod);
      if (stream == nullptr) {
        ++unknown_pods;
        continue;
      }
      live(*stream, topic.model, *seq, view(frames[2]));
    }
  }

  // What counts() tells by endpoint, at most ten times a second.
  void tally() {
    if (clock.now_ms() - tallied_ms < kExpireEveryMs) return;
    tallied_ms = clock.now_ms();
    const std::lock_guard lock(mutex);
    messages_of.clear();
    waiting_now = 0;
    for (const auto& stream : streams) {
      messages_of[stream->endpoint.address] += stream->messages;
      waiting_now += stream->waiting.size();
    }
  }

  void turn() {
    std::vector<zmq::pollitem_t> items = {{control_in->handle(), 0, ZMQ_POLLIN, 0}};
    if (shared) items.push_back({shared->handle(), 0, ZMQ_POLLIN, 0});
    std::vector<std::pair<Stream*, bool>> who;  // beside items behind the first ones
    const size_t first = items.size();
    for (const auto& stream : streams) {
      if (stream->events) items.push_back({stream->events->handle(), 0, ZMQ_POLLIN, 0}), who.emplace_back(stream.get(), false);
      if (stream->replay) items.push_back({stream->replay->handle(), 0, ZMQ_POLLIN, 0}), who.emplace_back(stream.get(), true);
    }
    tally();
    zmq::poll(items, std::chrono::milliseconds(kExpireEveryMs));
    index.expire(clock.now_ms());
    // Replays first: a live message that came behind them must find them done.
    for (const bool replay : {true, false}) {
      for (size_t i = first; i < items.size(); ++i) {
        const auto [stream, is_replay] = who[i - first];
        if (is_replay != replay || (items[i].revents & ZMQ_POLLIN) == 0) continue;
        if (!replay) {
          drain(stream, *stream->events);
          continue;
        }
        for (int n = 0; n < kRoundMessages && stream->replay; ++n) {
          const auto frames = receive(*stream->replay);
          if (frames.empty()) break;
          replayed(*stream, frames);
        }
      }
    }
    for (const auto& stream : streams) {
      if (!stream->replaying || clock.now_ms() < stream->replay_until_ms) continue;
      ++replay_failures;
      end_replay(*stream);
    }
    if (shared && (items[1].revents & ZMQ_POLLIN) != 0) {
      adopt_news();  // an endpoint that is told of before it publishes is known when its message is read
      drain(nullptr, *shared);
    }
    if ((items[0].revents & ZMQ_POLLIN) != 0) receive(*control_in);
  }

  void adopt_news() {
    std::optional<std::vector<KvEndpoint>> wanted;
    {
      const std::lock_guard lock(mutex);
      wanted.swap(next_endpoints);
    }
    if (wanted) adopt(std::move(*wanted));
  }

  void run() {
    while (!stopping.load()) {
      try {
        adopt_news();
        turn();
      } catch (const zmq::error_t& e) {
        ++socket_errors;
        if (e.num() == ETERM) return;
        log_error("KV event socket failed", "error={}", e.what());
      }
    }
  }

  void wake() {
    const std::lock_guard lock(mutex);
    if (!control_out) return;
    try {
      (void)control_out->send(zmq::message_t(), zmq::send_flags::dontwait);
    } catch (const zmq::error_t&) {
      ++socket_errors;
    }
  }

  const KvSourceOptions options;
  route::KvEventIndex& index;
  const Clock& clock;
  zmq::context_t context;
  std::optional<zmq::socket_t> control_in, control_out, shared;
  std::vector<std::unique_ptr<Stream>> streams;  // the thread's
  int64_t tallied_ms = INT64_MIN / 2;
  mutable std::mutex mutex;  // guards control_out, next_endpoints and the three below
  std::map<std::string, uint64_t> messages_of, connect_errors_of;
  size_t waiting_now = 0;
  std::optional<std::vector<KvEndpoint>> next_endpoints;
  std::atomic<bool> stopping{false};
  std::thread thread;
  std::atomic<uint64_t> messages{0}, applied{0}, decode_errors{0}, socket_errors{0}, unknown_pods{0}, gaps{0}, replays{0}, replay_failures{0},
      lost{0}, restarts{0}, dropped{0};
  std::atomic<size_t> subscribers{0};
};

KvEventSource::KvEventSource(KvSourceOptions options, route::KvEventIndex& index, const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), index, clock)) {}
KvEventSource::~KvEventSource() { stop(); }

Result<> KvEventSource::start() {
  Impl& s = *impl_;
  try {
    s.control_in.emplace(s.context, zmq::socket_type::pair);
    s.control_in->bind("inproc://control");
    s.control_out.emplace(s.context, zmq::socket_type::pair);
    s.control_out->connect("inproc://control");
    if (const std::string& at = s.options.shared_endpoint; !at.empty()) {
      s.shared.emplace(s.context, zmq::socket_type::sub);
      s.configure(*s.shared);
      s.shared->set(zmq::sockopt::subscribe, s.options.topic_filter);
      if (at.find('*') != std::string::npos)
        s.shared->bind(at);
      else
        s.shared->connect(at);
    }
  } catch (const zmq::error_t& e) {
    return fail(Code::kUnavailable, "KV events: ", s.options.shared_endpoint, ": ", e.what());
  }
  s.thread = std::thread([&s] { s.run(); });
  return {};
}

void KvEventSource::stop() {
  if (!impl_->thread.joinable()) return;
  impl_->stopping = true;
  impl_->wake();
  impl_->thread.join();
  impl_->streams.clear();
}

void KvEventSource::set_endpoints(std::vector<KvEndpoint> endpoints) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->next_endpoints = std::move(endpoints);
  }
  impl_->wake();
}

KvSourceCounts KvEventSource::counts() const {
  const Impl& s = *impl_;
  const std::lock_guard lock(s.mutex);
  return {.messages = s.messages, .applied = s.applied, .decode_errors = s.decode_errors, .socket_errors = s.socket_errors,
          .unknown_pods = s.unknown_pods, .gaps = s.gaps, .replays = s.replays, .replay_failures = s.replay_failures, .lost = s.lost,
          .restarts = s.restarts, .dropped = s.dropped, .subscribers = s.subscribers,
          .waiting = s.waiting_now, .waiting_max = s.options.waiting_messages_max * std::max<size_t>(1, s.subscribers),
          .messages_of = s.messages_of, .connect_errors_of = s.connect_errors_of};
}

}  // namespace baton::picker
