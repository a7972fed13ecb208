#include "transfer/link.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cmath>

#include "base/log.h"
#include "transfer/auth.h"
#include "transfer/tcp/tcp_transport.h"

namespace baton::transfer {

constexpr int kEchoes = 8;               // the best of so many round trips
constexpr int kFailuresLogged = 5;       // engines that start together miss each other a few times, which nobody needs to read
constexpr int kFlappingFailuresMax = 3;  // a peer that answers is tried again within 0.6 s

static double slow_gigabytes_per_s(Path path) {
  return path == Path::kShm ? kSlowShmGigabytesPerS : path == Path::kTcp ? kSlowTcpGigabytesPerS : kSlowUcxGigabytesPerS;
}

Link::Link(Context& context, Resolver& resolver, HostPort where, std::function<void()> changed)
    : context_(context),
      resolver_(resolver),
      where_(std::move(where)),
      changed_(std::move(changed)),
      jitter_(context.random_u64()) {
  status_.address = where_.text();
  begin();
}

Link::~Link() {
  changed_ = [] {};
  fail_pending({Code::kUnavailable, "the peer is no longer wanted"});
  tear_down();
  context_.stats.peer(status_.address, 0);
}

void Link::set_status(std::string state, std::string detail) {
  status_.state = std::move(state);
  status_.detail = std::move(detail);
  context_.stats.peer(status_.address, status_.state == "connected" ? 1 : status_.state == "refused" ? -1 : 0);
  changed_();
}

void Link::begin() {
  state_ = State::kResolving;
  if (!refused_) set_status("connecting", failures_ == 0 ? "" : status_.detail);
  refused_ = false;
  timer_ = context_.loop.after(kHandshakeMs, [this] { lost({Code::kDeadlineExceeded, "handshake took too long"}); });
  resolve_ticket_ = resolver_.ask(where_, [this](auto addresses) { on_resolved(std::move(addresses)); });
}

void Link::on_resolved(Result<std::vector<Address>> addresses) {
  resolve_ticket_ = 0;
  if (!addresses) return lost(addresses.error());
  auto fd = context_.dial((*addresses)[next_address_++ % addresses->size()]);  // another one at each try
  if (!fd) return lost(fd.error());
  connecting_ = *std::move(fd);
  state_ = State::kConnecting;
  connecting_watch_ = context_.loop.watch(connecting_.get(), EPOLLOUT, [this](uint32_t events) { on_connecting(events); });
}

void Link::on_connecting(uint32_t) {
  if (auto r = connect_result(connecting_); !r) return lost(r.error());
  context_.loop.unwatch(std::exchange(connecting_watch_, 0));
  tune_tcp(connecting_, std::max(context_.options.lease_ms, 1000));
  conn_ = std::make_unique<Conn>(context_.loop, std::move(connecting_), *this);
  connecting_ = Fd();
  state_ = State::kHello;
  hello_ = Hello{};
  hello_.engine_id = context_.options.engine_id;
  hello_.incarnation = context_.incarnation;
  hello_.fingerprint = context_.options.fingerprint;
  hello_.blocks = context_.rank_fields();
  hello_.boot_id = context_.boot_id;
  hello_.wants_shm = context_.options.transport == "auto" || context_.options.transport == "shm";
  hello_.ucx = context_.fabric != nullptr ? ucx::version() : "";
  secure_random_bytes(hello_.nonce);
  conn_->send(encode(hello_));
}

Result<> Link::on_frame(FrameType type, std::span<const std::byte> body) {
  if (type == FrameType::kReject) {
    BATON_TRY(auto reject, decode<Reject>(body));
    refused_ = true;
    return fail(Code::kFailedPrecondition, refusal_name(reject.reason), ": ", reject.detail);
  }
  switch (type) {
    case FrameType::kAccept: {
      BATON_TRY(auto m, decode<Accept>(body));
      return on_accept(m);
    }
    case FrameType::kReady: {
      BATON_TRY(auto m, decode<Ready>(body));
      return on_ready(m);
    }
    case FrameType::kEcho: {
      BATON_TRY(auto m, decode<Echo>(body));
      return on_echo(m);
    }
    case FrameType::kOpened: {
      BATON_TRY(auto m, decode<Opened>(body));
      return fetches_ ? fetches_->on_opened(m) : fail(Code::kFailedPrecondition, "OPENED out of turn");
    }
    case FrameType::kFailed: {
      BATON_TRY(auto m, decode<Failed>(body));
      return fetches_ ? fetches_->on_failed(m) : fail(Code::kFailedPrecondition, "FAILED out of turn");
    }
    case FrameType::kCompleted: {
      BATON_TRY(auto m, decode<Completed>(body));
      return fetches_ ? fetches_->on_completed(m) : fail(Code::kFailedPrecondition, "COMPLETED out of turn");
    }
    case FrameType::kKeep: {
      BATON_TRY(auto m, decode<Keep>(body));
      return fetches_ ? fetches_->on_keep(m) : Result<>{};
    }
    default:
      return {};  // of a later version
  }
}

Result<> Link::on_accept(const Accept& accept) {
  if (state_ != State::kHello) return fail(Code::kFailedPrecondition, "ACCEPT out of turn");
  if (!equal_constant_time(accept.proof, handshake_proof(context_.options.secret, Prover::kProducer, hello_, accept))) {
    refused_ = true;
    return fail(Code::kUnauthenticated, refusal_name(Refusal::kAuthentication), ": the peer does not know our shared secret");
  }
  auto usable = kv::check(accept.blocks.shard);
  if (usable) usable = kv::check_same_model(context_.shard, accept.blocks.shard);
  if (usable && accept.blocks.shard.layout.block_bytes() > kChunkPayloadMax)
    usable = fail(Code::kOutOfRange, "blocks of ", accept.blocks.shard.layout.block_bytes(), " bytes");
  if (!usable) {
    refused_ = true;
    return fail(Code::kFailedPrecondition, refusal_name(Refusal::kLayout), ": ", usable.error().message);
  }
  accept_ = accept;
  state_ = State::kAuth;
  conn_->send(encode(Auth{handshake_proof(context_.options.secret, Prover::kConsumer, hello_, accept)}));
  return {};
}

Result<> Link::on_ready(const Ready& ready) {
  if (state_ != State::kAuth) return fail(Code::kFailedPrecondition, "READY out of turn");
  ready_ = ready;
  if (context_.options.transport == "tcp") return probe(), Result<>{};
  if (context_.options.transport == "ucx") return open_ucx(), Result<>{};
  if (ready.shm_name.empty()) {
    no_shm({Code::kUnavailable, "not on one host, or the peer shares no memory"});
  } else {
    map_pool(ready);
  }
  return {};
}

// Asks the peer's unix socket for its pool.
void Link::map_pool(const Ready& ready) {
  state_ = State::kMapping;
  if (!ready.shm_name.starts_with(kShmNamePrefix)) return no_shm({Code::kPermissionDenied, "not a KV pool's socket"});
  auto fd = unix_connect(ready.shm_name);
  if (!fd) return no_shm(fd.error());
  unix_ = *std::move(fd);
  if (!same_user(unix_)) return no_shm({Code::kPermissionDenied, "the peer's memory belongs to another user"});
  if (::send(unix_.get(), ready.shm_key.data(), ready.shm_key.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(ready.shm_key.size()))
    return no_shm({Code::kUnavailable, "the peer's unix socket takes no key"});
  unix_watch_ = context_.loop.watch(unix_.get(), EPOLLIN, [this, n = ready.pool_bytes](uint32_t) { on_descriptor(n); });
}

void Link::on_descriptor(uint64_t pool_bytes) {
  context_.loop.unwatch(std::exchange(unix_watch_, 0));
  auto fd = receive_descriptor(unix_);
  unix_ = Fd();
  if (!fd) return no_shm(fd.error());
  auto pool = PeerPool::map(*fd, pool_bytes);
  if (!pool) return no_shm(pool.error());
  peer_pool_.emplace(*std::move(pool));
  probe();
}

void Link::no_shm(const Error& why) {
  unix_ = Fd();
  if (context_.options.transport == "shm") return conn_->close({why.code, cat("shm: ", why.message)});
  if (context_.fabric == nullptr) return probe();
  open_ucx();
}

void Link::open_ucx() {
  if (context_.fabric == nullptr || ready_.ucx_address.bytes.empty())
    return no_ucx({Code::kUnavailable, cat("versions: ours ", hello_.ucx, ", the peer's ", accept_.ucx)});
  Ucx ours{.key = {}, .address = {context_.fabric->local().address}};
  context_.random(ours.key);
  channel_.emplace(*context_.fabric, ready_.ucx_address.bytes, ready_.ucx_pool_key.bytes, ours.key,
                   [this](const Error& why) { no_ucx(why); });
  auto largest = std::max({context_.options.chunk_bytes, shard().layout.block_bytes(), kProbeBytesMax});
  channel_->expect(largest, [this](const ChunkHead& head, ucx::Staging::Ref bytes) { on_arrival(head, std::move(bytes)); });
  conn_->send(encode(ours));
  ucx_timer_ = context_.loop.after(kUcxProbeMs, [this] { no_ucx({Code::kDeadlineExceeded, "no self-test came through"}); });
  probe();
}

// Before it was in use: the plain socket carries the blocks; after: the pair connects anew.
void Link::no_ucx(const Error& why) {
  context_.loop.cancel(std::exchange(ucx_timer_, {}));
  if (context_.options.transport == "ucx" || connected()) return conn_->close({why.code, cat("ucx: ", why.message)});
  log_warn("kv ucx unavailable, tcp instead", "peer={} why=\"{}\"", status_.address, why.message);
  channel_.reset();
  probe();
}

// One-sided reads are worth a test where a device does them; emulated ones are the slowest way there is (facts 4.4).
void Link::probe_ucx(Path path) {
  ucx_path_ = path;
  probe_left_ = kProbeBytesMax;
  probe_ns_ = context_.loop.clock().now_ns();
  if (path == Path::kUcx) return conn_->send(encode(Probe{kProbeBytesMax, path}));
  probe_left_ = std::min<size_t>(kProbeBytesMax, ready_.pool_bytes);
  channel_->read({.op = 0, .first_block = 0, .n_blocks = 0, .checksum = 0, .block_bytes = probe_left_},
                 {{ready_.pool_base, probe_left_}});
}

void Link::probe_ucx_done() {
  auto bytes = ucx_path_ == Path::kUcx ? kProbeBytesMax : std::min<size_t>(kProbeBytesMax, ready_.pool_bytes);
  auto ns = std::max<int64_t>(1, context_.loop.clock().now_ns() - probe_ns_);
  status_.gigabytes_per_s = static_cast<double>(bytes) / static_cast<double>(ns);
  if (++ucx_passes_ < 2) return probe_ucx(ucx_path_);  // the first one paid for connecting
  const auto& wanted = context_.options.ucx_primitive;
  bool may_get = !ready_.ucx_pool_key.bytes.empty() && wanted != "am" && (wanted == "get" || ucx::rdma_device_present());
  if (ucx_path_ == Path::kUcx && may_get) {
    ucx_am_speed_ = status_.gigabytes_per_s;
    ucx_passes_ = 0;
    return probe_ucx(Path::kUcxGet);
  }
  if (ucx_path_ == Path::kUcxGet && wanted != "get" && ucx_am_speed_ > status_.gigabytes_per_s) {
    ucx_path_ = Path::kUcx;
    status_.gigabytes_per_s = ucx_am_speed_;
  }
  context_.loop.cancel(std::exchange(ucx_timer_, {}));
  enter_connected();
}

void Link::on_arrival(const ChunkHead& head, ucx::Staging::Ref bytes) {
  if (connected()) {
    if (auto taken = fetches_->on_arrival(head, std::move(bytes)); !taken) conn_->close(taken.error());
    return;
  }
  if (state_ != State::kProbing || head.op != 0 || bytes->size > probe_left_)
    return conn_->close({Code::kFailedPrecondition, "blocks out of turn"});
  probe_left_ -= bytes->size;
  if (probe_left_ == 0) probe_ucx_done();
}

void Link::probe() {
  state_ = State::kProbing;
  status_.rtt_us = INFINITY;
  echoes_ = 0;
  probe_left_ = 0;
  probe_ns_ = context_.loop.clock().now_ns();
  conn_->send(encode(Heartbeat{static_cast<uint64_t>(probe_ns_), {}}));
}

Result<> Link::on_echo(const Echo& echo) {
  if (state_ == State::kConnected) {
    // Every grant that we named lives until 2/3 lease after we asked; that is earlier than the producer reckons.
    if (echo.extended_ms > 0 && fetches_) {
      auto asked = static_cast<int64_t>(std::min<uint64_t>(echo.echo, static_cast<uint64_t>(context_.loop.now_ms())));
      fetches_->renewed(asked, asked + std::min<int64_t>(echo.extended_ms, kLeaseMaxMs));
    }
    return {};
  }
  if (state_ != State::kProbing || probe_left_ > 0) return fail(Code::kFailedPrecondition, "echo out of turn");
  auto now = context_.loop.clock().now_ns();
  status_.rtt_us = std::min(status_.rtt_us, static_cast<double>(now - probe_ns_) * 1e-3);
  probe_ns_ = now;
  if (++echoes_ < kEchoes) {
    conn_->send(encode(Heartbeat{static_cast<uint64_t>(now), {}}));
  } else if (peer_pool_) {
    measure_shm();
  } else if (channel_) {
    ucx_passes_ = 0;
    probe_ucx(Path::kUcx);
  } else {
    probe_left_ = context_.probe_bytes;
    conn_->send(encode(Probe{static_cast<uint32_t>(probe_left_), Path::kTcp}));
  }
  return {};
}

// The first pass pays for page faults; the best one says what the path can do.
void Link::measure_shm() {
  auto from = peer_pool_->bytes().first(std::min(peer_pool_->bytes().size(), kProbeBytesMax));
  std::vector<std::byte> scratch(from.size());
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {
    auto begin = context_.loop.clock().now_ns();
    std::memcpy(scratch.data(), from.data(), from.size());
    asm volatile("" : : "r"(scratch.data()) : "memory");  // the copy is not optimised away
    best = std::max(best, static_cast<double>(from.size()) /
                              static_cast<double>(std::max<int64_t>(1, context_.loop.clock().now_ns() - begin)));
  }
  status_.gigabytes_per_s = best;
  enter_connected();
}

void Link::probe_tcp_done() {
  auto ns = std::max<int64_t>(1, context_.loop.clock().now_ns() - probe_ns_);
  status_.gigabytes_per_s = static_cast<double>(context_.probe_bytes) / static_cast<double>(ns);
  enter_connected();
}

void Link::enter_connected() {
  context_.loop.cancel(timer_);
  std::unique_ptr<Transport> transport;
  if (peer_pool_) {
    transport = make_shm_consumer(context_.pool, *std::move(peer_pool_), shard().layout.block_bytes());
  } else if (channel_) {
    transport = ucx::make_ucx_receiver(ucx_path_, *channel_, {ready_.pool_base, ready_.pool_bytes, shard().layout.block_bytes()});
  } else {
    transport = make_tcp_transport(context_.pool);
  }
  peer_pool_.reset();
  fetches_ = std::make_unique<Fetches>(context_, *conn_, std::move(transport), shard());
  state_ = State::kConnected;
  connected_ms_ = context_.loop.now_ms();
  status_.engine_id = accept_.engine_id;
  status_.transport = path_name(fetches_->path());
  bool slow = status_.gigabytes_per_s < slow_gigabytes_per_s(fetches_->path());
  context_.stats.path(status_.address, fetches_->path(), status_.gigabytes_per_s * 1e9, slow);
  log_line(slow ? LogLevel::kWarn : LogLevel::kInfo, "kv peer connected",
           fmt::format("peer={} engine={} transport={} gb_per_s={:.2f} rtt_us={:.0f} verdict={}", status_.address,
                       status_.engine_id, status_.transport, status_.gigabytes_per_s, status_.rtt_us, slow ? "slow" : "ok"));
  set_status("connected", slow ? "slow path" : "");
  for (const auto& token : std::exchange(declines_, {})) conn_->send(encode(Decline{token}));
  for (auto& [fetch, token] : std::exchange(pending_, {})) this->fetch(std::move(fetch), token, {});
  beat();
}

void Link::fetch_when_connected(Fetch f, const Token& token) {
  if (connected()) return fetch(std::move(f), token, {});
  if (state_ == State::kWaiting || pending_.size() >= kPendingPushesMax) {
    decline(token);  // once connected: nobody will come for it
    return emit_fetch_failed(context_, f,
                             {Code::kUnavailable, cat("kv peer ", where_.text(), " is not connected: ", status_.detail)});
  }
  pending_.emplace_back(std::move(f), token);
}

void Link::fail_pending(const Error& why) {
  for (auto& [fetch, token] : std::exchange(pending_, {})) {
    emit_fetch_failed(context_, fetch, why);
    decline(token);
  }
}

bool Link::cancel(uint64_t request) {
  auto it = std::ranges::find_if(pending_, [&](const auto& p) { return p.first.request == request; });
  if (it == pending_.end()) return fetches_ && fetches_->cancel(request);
  auto [fetch, token] = std::move(*it);
  pending_.erase(it);
  emit_fetch_failed(context_, fetch, {Code::kCancelled, "cancelled"});
  decline(token);
  return true;
}

void Link::fetch(Fetch fetch, const Token& token, FetchPart part) {
  if (fetch.push) {
    if (accept_.version < kVersionPush) {
      decline(token);
      return emit_fetch_failed(context_, fetch, {Code::kUnimplemented, "that engine is of a version without push"});
    }
    // All of it must be here: a push comes from one rank.
    auto parts = kv::parts_for({&accept_.blocks.shard, 1}, context_.shard, context_.options.rank);
    auto readers = kv::readers_of({&accept_.blocks.shard, 1}, 0, context_.ranks);
    if (!parts || !readers) {
      decline(token);
      return emit_fetch_failed(context_, fetch, parts ? readers.error() : parts.error());
    }
    fetch.grant.incarnation = accept_.incarnation;
    part = {.part = parts->front(), .readers = static_cast<uint16_t>(*readers), .joint = nullptr};
    return fetches_->start(std::move(fetch), token, context_.loop.now_ms(), std::move(part));
  }
  if (fetch.grant.incarnation != accept_.incarnation || fetch.grant.engine_id != accept_.engine_id)
    return emit_fetch_failed(context_, fetch, {Code::kFailedPrecondition, "the grant is of an earlier life of that engine"},
                             part.joint.get());
  fetches_->start(std::move(fetch), token, context_.loop.now_ms(), std::move(part));
}

void Link::decline(const Token& token) {
  if (connected()) return conn_->send(encode(Decline{token}));
  if (declines_.size() < kPendingDeclinesMax) {
    declines_.push_back(token);
  } else {
    context_.stats.failed_notifications.inc();
  }
}

// The producer's lease is what must not run out; ours decides only how soon we miss it.
int Link::heartbeat_ms() const {
  auto theirs = static_cast<int>(std::clamp<uint32_t>(accept_.lease_ms, kLeaseMinMs, kLeaseMaxMs));
  return std::min(theirs, context_.options.lease_ms) / kHeartbeatsPerLease;
}

// Renews all grants that are held or being read. Also the liveness check of the pair: echoes must come back.
void Link::beat() {
  auto now = context_.loop.now_ms();
  timer_ = context_.loop.after(heartbeat_ms(), [this] { beat(); });
  if (now - conn_->heard_ms() > context_.silence_ms())
    return conn_->close({Code::kUnavailable, cat("the peer was silent for ", now - conn_->heard_ms(), " ms")});
  std::vector<Token> tokens(held_.begin(), held_.end());
  fetches_->append_tokens(tokens);
  for (size_t at = 0; at == 0 || at < tokens.size(); at += kGrantsPerHeartbeatMax) {
    auto n = std::min(kGrantsPerHeartbeatMax, tokens.size() - at);
    conn_->send(
        encode(Heartbeat{static_cast<uint64_t>(now),
                         {tokens.begin() + static_cast<ptrdiff_t>(at), tokens.begin() + static_cast<ptrdiff_t>(at + n)}}));
  }
}

Result<Landing> Link::on_chunk(const ChunkHead& head, size_t payload_bytes) {
  if (fetches_ && head.op != 0) return fetches_->on_chunk(head, payload_bytes);
  if (state_ != State::kProbing || head.op != 0 || payload_bytes > probe_left_)
    return fail(Code::kFailedPrecondition, "blocks out of turn");
  probe_left_ -= payload_bytes;
  return Landing{.report = probe_left_ == 0, .parts = {}};
}

Result<> Link::on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected) {
  if (head.op == 0) return probe_tcp_done(), Result<>{};
  return fetches_ ? fetches_->on_chunk_end(head, collected) : Result<>{};
}

int64_t Link::backoff_ms() {
  if (refused_) return kBackoffRefusedMs;
  auto ms = std::min<int64_t>(kBackoffMaxMs, int64_t{kBackoffFirstMs} << std::min(failures_, 16));
  return ms / 2 +
         static_cast<int64_t>(jitter_.below(static_cast<uint64_t>(ms)));  // so that a restarted peer is not met by all at once
}

void Link::tear_down() {
  context_.loop.cancel(timer_);
  context_.loop.unwatch(std::exchange(connecting_watch_, 0));
  context_.loop.unwatch(std::exchange(unix_watch_, 0));
  resolver_.drop(resolve_ticket_);
  connecting_ = Fd();
  unix_ = Fd();
  peer_pool_.reset();
  context_.loop.cancel(std::exchange(ucx_timer_, {}));
  fetches_.reset();  // before the connection it writes to, and the channel
  channel_.reset();
  conn_.reset();
}

void Link::lost(const Error& why) {
  bool was_connected = connected();
  bool stable = was_connected && context_.loop.now_ms() - connected_ms_ > kBackoffMaxMs;
  Error gone{Code::kUnavailable, cat("peer ", status_.address, ": ", why.message)};
  if (fetches_) fetches_->fail_all(gone);
  fail_pending(gone);
  tear_down();
  if (was_connected || (refused_ && status_.state != "refused"))
    log_warn(refused_ ? "kv peer refused" : "kv peer lost", "peer={} engine={} why=\"{}\"", status_.address, status_.engine_id,
             why.message);
  if (failures_ + 1 == kFailuresLogged) log_warn("kv peer unreachable", "peer={} why=\"{}\"", status_.address, why.message);
  failures_ = stable ? 0 : was_connected ? std::min(failures_ + 1, kFlappingFailuresMax) : failures_ + 1;
  auto wait = backoff_ms();
  state_ = State::kWaiting;
  set_status(refused_ ? "refused" : "connecting", why.message);
  timer_ = context_.loop.after(wait, [this] { begin(); });
}

}  // namespace baton::transfer
