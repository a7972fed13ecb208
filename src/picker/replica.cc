#include "picker/replica.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <zmq.hpp>

#include "base/log.h"
#include "base/prng.h"
#include "route/endpoint.h"

namespace baton::picker {
namespace {

// "service:8080" to "10.0.0.1:8080" and so on; empty if the name is not known now.
std::vector<std::string> resolve(const std::string& name) {
  std::vector<std::string> out;
  const size_t colon = name.rfind(':');
  if (colon == std::string::npos) return out;
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(name.substr(0, colon).c_str(), name.substr(colon + 1).c_str(), &hints, &list) != 0) return out;
  for (const addrinfo* a = list; a != nullptr && out.size() < 2 * kReplicaPeersMax; a = a->ai_next) {
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) == 0)
      out.push_back(route::host_port(host, std::atoi(port)));
  }
  freeaddrinfo(list);
  return out;
}

}  // namespace

struct Replica::Impl {
  Impl(ReplicaOptions o, ReplicaHooks h, const Clock& c)
      : options(std::move(o)),
        hooks(std::move(h)),
        clock(c),
        context(1),
        ledger(options.name, secure_random_u64(), options.token, options.ttl_ms) {}

  void listen_to(std::vector<std::string> wanted) {
    wanted.insert(wanted.end(), options.peers.begin(), options.peers.end());
    const std::set<std::string> next(wanted.begin(), wanted.end());
    for (const std::string& peer : connected) {
      if (!next.contains(peer)) in->disconnect("tcp://" + peer);
    }
    std::set<std::string> done;
    for (const std::string& peer : next) {
      try {
        if (!connected.contains(peer)) in->connect("tcp://" + peer);
        done.insert(peer);
      } catch (const zmq::error_t& e) {
        ++socket_errors;
        log_warn("replica cannot be reached", "peer={} error={}", peer, e.what());
      }
    }
    connected = std::move(done);
  }

  void send(const std::string& message) {
    if (message.empty()) return;
    if (out->send(zmq::message_t(message.data(), message.size()), zmq::send_flags::dontwait)) ++sent;
  }

  void tick(int64_t now) {
    const std::vector<ReplicaCount> local = hooks.local ? hooks.local() : std::vector<ReplicaCount>();
    if (joined || now >= next_snapshot_ms) {
      send(ledger.snapshot(local));
      next_snapshot_ms = now + options.snapshot_ms;
      joined = false;
    } else {
      send(ledger.delta(local));
    }
    std::vector<ReplicaPrefix> prefixes;
    {
      const std::lock_guard lock(mutex);
      prefixes.swap(queue);
      queued = 0;
    }
    for (size_t i = 0; i < prefixes.size();) {  // as many a message as fit
      size_t n = 0, hashes = 0;
      while (i + n < prefixes.size() && (n == 0 || hashes + prefixes[i + n].hashes.size() <= kReplicaHashesMax / 2)) {
        hashes += prefixes[i + n++].hashes.size();
      }
      send(ledger.prefixes(std::span(prefixes).subspan(i, n)));
      i += n;
    }
    ask_to_join(now);
    send_part();
    if (ledger.expire(now)) changed = true;
    peers = ledger.peers();
    gaps = ledger.gaps();
    if (std::exchange(changed, false) && hooks.remote) hooks.remote(ledger.totals());
  }

  // ---- joining: ask the replicas in turn until one answers; an answer that stops is asked for again
  void ask_to_join(int64_t now) {
    if (joined_done || !hooks.older) return;
    if (started_ms < 0) started_ms = now;
    if (now - started_ms > options.join_ms) {
      joined_done = true;
      return;
    }
    if (now < next_want_ms) return;
    const std::vector<std::string> names = ledger.names();
    if (names.empty() || (hooks.endpoints && hooks.endpoints().empty())) return;
    send(ledger.want(names[asked++ % names.size()]));
    next_want_ms = now + options.want_ms;
  }
  void joined_part(const ReplicaNews& news) {
    if (!news.part || !hooks.older) return;
    ++parts_received;
    for (const ReplicaPrefix& p : news.older) hooks.older(p.address, p.hashes);
    next_want_ms = clock.now_ms() + options.want_ms;
    if (news.last && !std::exchange(joined_done, true)) log_info("replica joined: it knows what the others know of prompts");
  }
  // ---- answering: one endpoint a turn
  void send_part() {
    if (answers.empty() || !hooks.endpoints || !hooks.held) return;
    Answer& answer = answers.front();
    const std::string address = answer.endpoints.empty() ? std::string() : answer.endpoints.back();
    if (!answer.endpoints.empty()) answer.endpoints.pop_back();
    const bool last = answer.endpoints.empty();
    std::vector<ReplicaPrefix> held;
    if (!address.empty()) held.push_back({address, hooks.held(address, std::min(options.held_hashes_max, kReplicaHashesMax))});
    send(ledger.part(answer.to, held, last));
    ++parts_sent;
    if (last) answers.pop_front();
  }
  void wanted_by(const std::string& name) {
    if (!hooks.endpoints || !hooks.held) return;
    const bool known = std::ranges::any_of(answers, [&](const Answer& a) { return a.to == name; });
    if (!known && answers.size() < kReplicaPeersMax) answers.push_back({name, hooks.endpoints()});
  }

  void receive() {
    std::vector<ReplicaPrefix> learnt;
    ReplicaNews news;
    for (int n = 0; n < 256; ++n) {
      zmq::message_t message;
      if (!in->recv(message, zmq::recv_flags::dontwait)) break;
      ++received;
      const auto done = ledger.receive({static_cast<const char*>(message.data()), message.size()}, clock.now_ms(), learnt, &news);
      if (done) {
        changed |= *done;
      } else if (++refused == 1) {
        log_warn("a replica's message was refused", "error={}", done.error().message);
      }
    }
    for (const std::string& name : news.wanted_by) wanted_by(name);
    joined_part(news);
    if (!hooks.prefix) return;
    for (const ReplicaPrefix& p : learnt) hooks.prefix(p.address, p.hashes);
  }

  void turn() {
    if (std::optional<std::vector<std::string>> found = take_resolved()) listen_to(std::move(*found));
    const int64_t wait = std::max<int64_t>(0, next_tick_ms - clock.now_ms());
    std::vector<zmq::pollitem_t> items = {
        {in->handle(), 0, ZMQ_POLLIN, 0}, {out->handle(), 0, ZMQ_POLLIN, 0}, {control_in->handle(), 0, ZMQ_POLLIN, 0}};
    zmq::poll(items, std::chrono::milliseconds(wait));
    if ((items[0].revents & ZMQ_POLLIN) != 0) receive();
    if ((items[1].revents & ZMQ_POLLIN) != 0) {  // a subscription: it begins with 1
      zmq::message_t subscription;
      while (out->recv(subscription, zmq::recv_flags::dontwait))
        joined |= subscription.size() > 0 && *subscription.data<char>() == 1;
    }
    if ((items[2].revents & ZMQ_POLLIN) != 0) {
      zmq::message_t wake;
      while (control_in->recv(wake, zmq::recv_flags::dontwait)) {
      }
    }
    const int64_t now = clock.now_ms();
    if (now < next_tick_ms) return;
    next_tick_ms = now + options.interval_ms;
    tick(now);
  }

  void run() {
    while (!stopping.load()) {
      try {
        turn();
      } catch (const zmq::error_t& e) {
        ++socket_errors;
        if (e.num() == ETERM) return;
        log_error("replica socket failed", "error={}", e.what());
      }
    }
  }

  // DNS may take seconds; counts must not wait for it.
  void run_dns() {
    std::unique_lock lock(mutex);
    while (!stopping.load()) {
      lock.unlock();
      std::vector<std::string> found = resolve(options.dns);
      lock.lock();
      if (!found.empty()) resolved = std::move(found);  // a name that fails now keeps its peers
      stopped.wait_for(lock, std::chrono::milliseconds(options.dns_ms), [this] { return stopping.load(); });
    }
  }
  std::optional<std::vector<std::string>> take_resolved() {
    const std::lock_guard lock(mutex);
    return std::exchange(resolved, std::nullopt);
  }

  const ReplicaOptions options;
  const ReplicaHooks hooks;
  const Clock& clock;
  zmq::context_t context;
  std::optional<zmq::socket_t> in, out, control_in, control_out;
  std::string bound;
  // the thread's
  ReplicaLedger ledger;
  std::set<std::string> connected;
  int64_t next_tick_ms = 0, next_snapshot_ms = 0;
  bool joined = false, changed = false;
  struct Answer {
    std::string to;
    std::vector<std::string> endpoints;  // still to be told
  };
  std::deque<Answer> answers;
  int64_t started_ms = -1, next_want_ms = 0;
  size_t asked = 0;
  bool joined_done = false;
  // shared
  std::mutex mutex;
  std::condition_variable stopped;
  std::optional<std::vector<std::string>> resolved;
  std::vector<ReplicaPrefix> queue;
  size_t queued = 0;
  std::atomic<bool> stopping{false};
  std::thread thread, dns;
  std::atomic<uint64_t> sent{0}, received{0}, refused{0}, gaps{0}, prefixes_dropped{0}, socket_errors{0}, parts_sent{0},
      parts_received{0};
  std::atomic<size_t> peers{0};
};

Replica::Replica(ReplicaOptions options, ReplicaHooks hooks, const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(hooks), clock)) {}
Replica::~Replica() { stop(); }

Result<> Replica::start() {
  Impl& r = *impl_;
  try {
    r.out.emplace(r.context, zmq::socket_type::xpub);
    r.in.emplace(r.context, zmq::socket_type::sub);
    for (zmq::socket_t* s : {&*r.out, &*r.in}) {
      s->set(zmq::sockopt::linger, 0);
      s->set(zmq::sockopt::ipv6, true);
      s->set(zmq::sockopt::maxmsgsize, static_cast<int64_t>(kReplicaMessageBytesMax));
      s->set(zmq::sockopt::reconnect_ivl, 100);
      s->set(zmq::sockopt::reconnect_ivl_max, 2'000);
      s->set(zmq::sockopt::tcp_keepalive, 1);
    }
    r.out->set(zmq::sockopt::xpub_verbose, true);  // every one that joins, not the first alone
    r.out->bind(r.options.bind);
    r.bound = r.out->get(zmq::sockopt::last_endpoint);
    r.in->set(zmq::sockopt::subscribe, "BRD1");
    r.control_in.emplace(r.context, zmq::socket_type::pair);
    r.control_in->bind("inproc://control");
    r.control_out.emplace(r.context, zmq::socket_type::pair);
    r.control_out->connect("inproc://control");
  } catch (const zmq::error_t& e) {
    return fail(Code::kUnavailable, "replica port ", r.options.bind, ": ", e.what());
  }
  r.resolved.emplace();
  if (!r.options.dns.empty()) r.dns = std::thread([&r] { r.run_dns(); });
  r.thread = std::thread([&r] { r.run(); });
  return {};
}

void Replica::stop() {
  Impl& r = *impl_;
  if (!r.thread.joinable()) return;
  {
    const std::lock_guard lock(r.mutex);
    r.stopping = true;
  }
  r.stopped.notify_all();
  try {
    (void)r.control_out->send(zmq::message_t(), zmq::send_flags::dontwait);
  } catch (const zmq::error_t&) {
    ++r.socket_errors;  // the thread wakes at its next tick
  }
  r.thread.join();
  if (r.dns.joinable()) r.dns.join();
  r.in.reset();
  r.out.reset();
}

void Replica::recorded(std::string_view address, std::span<const uint64_t> chain, size_t known) {
  if (known >= chain.size()) return;
  const std::span fresh = chain.subspan(known).first(std::min(chain.size() - known, kReplicaHashesMax / 2));
  const std::lock_guard lock(impl_->mutex);
  if (impl_->queued + fresh.size() > impl_->options.queue_hashes_max) {
    ++impl_->prefixes_dropped;
    return;
  }
  impl_->queued += fresh.size();
  impl_->queue.push_back({std::string(address), {fresh.begin(), fresh.end()}});
}

ReplicaCounts Replica::counts() const {
  const Impl& r = *impl_;
  return {.sent = r.sent,
          .received = r.received,
          .refused = r.refused,
          .gaps = r.gaps,
          .prefixes_dropped = r.prefixes_dropped,
          .socket_errors = r.socket_errors,
          .parts_sent = r.parts_sent,
          .parts_received = r.parts_received,
          .peers = r.peers};
}

std::string Replica::endpoint() const { return impl_->bound; }

}  // namespace baton::picker
