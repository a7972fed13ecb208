#include "transfer/session.h"

#include "base/log.h"
#include "base/prng.h"
#include "transfer/auth.h"
#include "transfer/shm/shm_transport.h"
#include "transfer/tcp/tcp_transport.h"

namespace baton::transfer {

constexpr uint64_t kCreditMax = uint64_t{1} << 40;
constexpr size_t kPumpBytes = 16u << 20;  // hashed and queued in one turn of the loop

Session::Session(Context& context, Producer& producer, Fd fd)
    : context_(context), producer_(producer), tcp_(make_tcp_transport(context.pool)), conn_(context.loop, std::move(fd), *this) {
  watch_silence();
}

Session::~Session() {
  context_.loop.cancel(timer_);
  context_.loop.cancel(pump_timer_);
  while (!awaits_.empty()) forget_await(awaits_.begin()->first);
  while (!reads_.empty()) forget(reads_.begin()->first);
}

void Session::on_closed(const Error& why) {
  log_debug("kv consumer gone", "engine={} reads={} why=\"{}\"", hello_.engine_id, reads_.size(), why.message);
  producer_.gone(*this);
}

// A consumer beats every lease/6 even without grants; one that is silent is gone, however its network looks. A connection that
// does not get through the handshake in time is closed alike.
void Session::watch_silence() {
  auto patience = state_ == State::kReady ? std::max(context_.options.lease_ms, context_.silence_ms()) : kHandshakeMs;
  timer_ = context_.loop.after(patience, [this, patience] {
    if (state_ != State::kReady) return cut("handshake took too long");
    if (context_.loop.now_ms() - conn_.heard_ms() >= patience) return cut("silent");
    watch_silence();
  });
}

template <class M>
static Result<> dispatch(Session* self, Result<> (Session::*handler)(const M&), std::span<const std::byte> body) {
  BATON_TRY(auto message, decode<M>(body));
  return (self->*handler)(message);
}

Result<> Session::on_frame(FrameType type, std::span<const std::byte> body) {
  auto in_order = state_ == State::kHello ? type == FrameType::kHello : state_ == State::kAuth ? type == FrameType::kAuth : true;
  if (!in_order) return fail(Code::kFailedPrecondition, "frame of type ", static_cast<int>(type), " before the handshake ended");
  switch (type) {
    case FrameType::kHello:
      return state_ == State::kHello ? dispatch(this, &Session::on_hello, body) : fail(Code::kInvalidArgument, "second HELLO");
    case FrameType::kAuth:
      return state_ == State::kAuth ? dispatch(this, &Session::on_auth, body) : fail(Code::kInvalidArgument, "second AUTH");
    case FrameType::kHeartbeat:
      return dispatch(this, &Session::on_heartbeat, body);
    case FrameType::kProbe:
      return dispatch(this, &Session::on_probe, body);
    case FrameType::kUcx:
      return dispatch(this, &Session::on_ucx, body);
    case FrameType::kFetch:
      return dispatch(this, &Session::on_fetch, body);
    case FrameType::kAwait:
      return dispatch(this, &Session::on_await, body);
    case FrameType::kCredit:
      return dispatch(this, &Session::on_credit, body);
    case FrameType::kClose:
      return dispatch(this, &Session::on_close, body);
    case FrameType::kDecline: {
      BATON_TRY(auto decline, decode<Decline>(body));
      context_.loop.drain_inbox();
      producer_.grants().decline(decline.token, hello_.engine_id);
      producer_.arm();
      return {};
    }
    default:
      return {};  // of a later version
  }
}

Result<> Session::refuse(Refusal reason, std::string detail) {
  log_warn("kv consumer refused", "engine={} reason={} detail=\"{}\"", hello_.engine_id, refusal_name(reason), detail);
  conn_.send(encode(Reject{reason, detail}));
  return fail(Code::kFailedPrecondition, "refused: ", refusal_name(reason));
}

Result<> Session::on_hello(const Hello& hello) {
  hello_ = hello;
  if (hello.magic != kMagic) return refuse(Refusal::kMagic, "this is a Baton KV transfer port");
  if (hello.version_min > kVersionMax || hello.version_max < kVersionMin)
    return refuse(Refusal::kVersion,
                  cat("we speak ", kVersionMin, " to ", kVersionMax, ", you ", hello.version_min, " to ", hello.version_max));
  if (hello.engine_id == context_.options.engine_id && hello.incarnation == context_.incarnation)
    return refuse(Refusal::kSelf, "this is your own port");
  if (hello.fingerprint != context_.options.fingerprint)
    return refuse(Refusal::kFingerprint,
                  cat("model fingerprint here ", context_.options.fingerprint, ", yours ", hello.fingerprint));
  auto same = kv::check(hello.blocks.shard);
  if (same) same = kv::check_same_model(hello.blocks.shard, context_.shard);
  if (!same) return refuse(Refusal::kLayout, same.error().message);
  accept_.version = std::min(hello.version_max, kVersionMax);
  accept_.engine_id = context_.options.engine_id;
  accept_.incarnation = context_.incarnation;
  accept_.lease_ms = static_cast<uint32_t>(context_.options.lease_ms);
  accept_.blocks = context_.rank_fields();
  accept_.ucx = context_.fabric != nullptr ? ucx::version() : "";
  secure_random_bytes(accept_.nonce);
  accept_.proof = handshake_proof(context_.options.secret, Prover::kProducer, hello_, accept_);
  state_ = State::kAuth;
  conn_.send(encode(accept_));
  return {};
}

Result<> Session::on_auth(const Auth& auth) {
  if (!equal_constant_time(auth.proof, handshake_proof(context_.options.secret, Prover::kConsumer, hello_, accept_)))
    return refuse(Refusal::kAuthentication, "the shared secrets differ");
  state_ = State::kReady;
  Ready ready;
  if (hello_.wants_shm && hello_.boot_id == context_.boot_id && !producer_.shm_name().empty()) {
    secure_random_bytes(shm_key_);
    shm_granted_ = true;
    shm_ = make_shm_producer(context_.pool, Path::kShm);
    ready.shm_name = producer_.shm_name();
    ready.shm_key = shm_key_;
  }
  ready.pool_bytes = context_.pool.bytes.size();
  if (context_.fabric != nullptr && hello_.ucx == accept_.ucx) {
    ucx_granted_ = true;
    ready.ucx_address.bytes = context_.fabric->local().address;
    ready.ucx_pool_key.bytes = context_.fabric->local().pool_key;
    ready.pool_base = context_.fabric->local().pool_base;
  }
  conn_.send(encode(ready));
  log_debug("kv consumer connected", "engine={} shm={}", hello_.engine_id, shm_granted_);
  return {};
}

Result<> Session::on_heartbeat(const Heartbeat& beat) {
  context_.loop.drain_inbox();  // a grant named here was posted before its token left this process
  for (const auto& token : beat.grants) producer_.grants().renew(token, hello_.engine_id, context_.loop.now_ms());
  producer_.arm();
  auto extended = producer_.grants().renewals() ? lease_extension_ms(context_.options.lease_ms) : 0;
  conn_.send(encode(Echo{beat.echo, static_cast<uint32_t>(extended)}));
  Keep keep;
  for (const auto& [op, waiting] : awaits_) keep.ops.push_back(op);
  for (const auto& [op, read] : reads_) {
    if (read.computing) keep.ops.push_back(op);
  }
  if (!keep.ops.empty()) conn_.send(encode(keep));
  return {};
}

Result<> Session::on_probe(const Probe& probe) {
  if (probe.bytes > kProbeBytesMax || conn_.queued_bytes() > kProbeBytesMax)
    return fail(Code::kOutOfRange, "self-test of ", probe.bytes, " bytes");
  auto scratch = producer_.probe_bytes();
  bool by_ucx = probe.path == Path::kUcx && channel_ && ++ucx_probes_ <= kUcxProbesMax;
  if (probe.path != Path::kTcp && !by_ucx) return fail(Code::kInvalidArgument, "self-test of a path that is not there");
  for (size_t left = probe.bytes; left > 0;) {
    auto n = std::min(left, scratch.size());
    ChunkHead head{.op = 0, .first_block = 0, .n_blocks = 0, .checksum = 0, .block_bytes = n};
    left -= n;
    if (by_ucx) {
      channel_->send(head, {{scratch.data(), n}});
      continue;
    }
    conn_.send_chunk(encode_chunk(head, n), {{scratch.data(), n}}, 0);
  }
  return {};
}

Result<> Session::on_ucx(const Ucx& m) {
  if (!ucx_granted_ || channel_ || m.address.bytes.empty()) return fail(Code::kFailedPrecondition, "UCX out of turn");
  channel_.emplace(*context_.fabric, m.address.bytes, "", m.key, [this](const Error& why) { cut(why.message); });
  ucx_ = ucx::make_ucx_sender(context_.pool, *channel_);
  ucx_get_ = make_shm_producer(context_.pool, Path::kUcxGet);
  return {};
}

Transport* Session::transport_for(Path path) {
  switch (path) {
    case Path::kTcp:
      return tcp_.get();
    case Path::kShm:
      return shm_.get();
    case Path::kUcx:
      return ucx_.get();
    case Path::kUcxGet:
      return ucx_get_.get();
  }
  return nullptr;
}

void Session::fail_read(uint64_t op, const Error& why) {
  conn_.send(encode(Failed{op, static_cast<uint16_t>(why.code), why.message}));
}

static kv::ShardPart part_of(const FetchMsg& f) { return {0, f.layer_first, f.layers, f.head_first, f.heads}; }

// Whatever is wrong with the request itself; the grant is judged by GrantTable::open().
bool Session::check_fetch(const FetchMsg& fetch) {
  auto refused = [&](Code code, std::string why) { return fail_read(fetch.op, {code, std::move(why)}), false; };
  if (transport_for(fetch.path) == nullptr) return refused(Code::kInvalidArgument, "no such path");
  if (reads_.size() >= kReadsPerSessionMax) return refused(Code::kResourceExhausted, "too many reads at once");
  if (fetch.incarnation != context_.incarnation)
    return refused(Code::kFailedPrecondition, "the grant is of an earlier life of this engine");
  if (!kv::covers(context_.shard, part_of(fetch)))
    return refused(Code::kOutOfRange, "layers or heads that this rank does not hold");
  return true;
}

Result<> Session::on_fetch(const FetchMsg& fetch) {
  if (fetch.op == 0 || reads_.contains(fetch.op) || awaits_.contains(fetch.op))
    return fail(Code::kInvalidArgument, "FETCH with a bad operation number");
  if (!check_fetch(fetch)) return {};
  context_.loop.drain_inbox();  // the grant was posted before its token left this process
  begin_read(fetch, false);
  return {};
}

Result<> Session::on_await(const Await& await) {
  auto op = await.op;
  if (op == 0 || reads_.contains(op) || awaits_.contains(op))
    return fail(Code::kInvalidArgument, "AWAIT with a bad operation number");
  if (!check_fetch(await)) return {};
  context_.loop.drain_inbox();
  auto& grants = producer_.grants();
  if (grants.find(await.token) != nullptr || grants.ended(await.token)) return begin_read(await, true), Result<>{};
  if (awaits_.size() >= kAwaitsPerSessionMax || !producer_.await(await.token, *this, op))
    return fail_read(op, {Code::kResourceExhausted, "too many readers wait for grants, or another one for this"}), Result<>{};
  auto timer = context_.loop.after(kAwaitMs, [this, op] {
    auto waiting = awaits_.find(op);
    waiting->second.timer = {};
    producer_.refuse(waiting->second.message.token,
                     {Code::kNotFound, cat("no prefill began under this token within ", kAwaitMs, " ms")});
  });
  awaits_.emplace(op, Waiting{await, timer});
  return {};
}

void Session::answer_await(uint64_t op, std::optional<Error> refused) {
  auto it = awaits_.find(op);
  if (it == awaits_.end()) return;
  auto message = it->second.message;
  context_.loop.cancel(it->second.timer);
  awaits_.erase(it);
  if (refused) return fail_read(op, *refused);
  if (check_fetch(message)) begin_read(message, true);
}

// Its consumer gave up or is gone: a grant under that token would have no reader.
void Session::forget_await(uint64_t op) {
  auto it = awaits_.find(op);
  auto token = it->second.message.token;
  context_.loop.cancel(it->second.timer);
  awaits_.erase(it);
  producer_.drop_await(token);
}

void Session::begin_read(const FetchMsg& fetch, bool await) {
  auto now = context_.loop.now_ms();
  auto entry = producer_.grants().open(fetch, hello_.engine_id, hello_.blocks.rank, now);
  if (!entry) return fail_read(fetch.op, entry.error());
  producer_.arm();
  auto block_tokens = context_.layout().block_tokens;
  auto first = fetch.first_token / block_tokens, last = (fetch.first_token + fetch.n_tokens + block_tokens - 1) / block_tokens;
  auto chunk_bytes = std::min<size_t>(fetch.chunk_bytes, kChunkPayloadMax);
  Read read{.token = fetch.token,
            .first = static_cast<size_t>(first),
            .total = static_cast<size_t>(last - first),
            .blocks = {},
            .cut = cut_of(context_.shard, part_of(fetch)),
            .completed_due = await,
            .transport = transport_for(fetch.path)};
  read.chunk_blocks = std::clamp<size_t>(chunk_bytes / read.cut.bytes(), 1, kControlBodyMax / sizeof(uint32_t));
  read.credit = std::min(fetch.credit, kCreditMax);
  auto left = producer_.grants().left_ms(fetch.token, now);
  conn_.send(encode(Opened{fetch.op, static_cast<uint32_t>(read.total), static_cast<uint32_t>(left)}));
  producer_.reading(fetch.token, *this, fetch.op);
  take_ready(fetch.op, reads_.emplace(fetch.op, std::move(read)).first->second);
  pump();
}

// The completion goes out ahead of the last blocks: its token is what a client waits for.
void Session::take_ready(uint64_t op, Read& read) {
  const auto* entry = producer_.grants().find(read.token);
  BATON_CHECK(entry != nullptr);
  read.computing = !entry->complete;
  if (entry->complete && std::exchange(read.completed_due, false)) {
    const auto& done = entry->completion;
    conn_.send(encode(Completed{op, done.first_token.value_or(-1), static_cast<uint64_t>(done.queue_us),
                                static_cast<uint64_t>(done.prefill_us), done.cached_tokens}));
  }
  auto ready = std::min(producer_.grants().ready_blocks(*entry), read.first + read.total);
  if (ready <= read.first + read.blocks.size()) return;
  if (read.next == read.blocks.size()) turns_.push_back(op);  // it had nothing to send
  auto& all = entry->offer.blocks;
  read.blocks.assign(all.begin() + static_cast<ptrdiff_t>(read.first), all.begin() + static_cast<ptrdiff_t>(ready));
}

void Session::advance(uint64_t op) {
  auto it = reads_.find(op);
  if (it == reads_.end() || it->second.stopped) return;
  take_ready(op, it->second);
  pump();
}

Result<> Session::on_credit(const Credit& credit) {
  auto it = reads_.find(credit.op);
  if (it == reads_.end()) return {};  // crossed our FAILED
  it->second.credit = std::min(it->second.credit + std::min(credit.bytes, kCreditMax), kCreditMax);
  pump();
  return {};
}

Result<> Session::on_close(const Close& close) {
  if (awaits_.contains(close.op)) forget_await(close.op);
  forget(close.op);
  pump();
  return {};
}

void Session::forget(uint64_t op) {
  auto it = reads_.find(op);
  if (it == reads_.end()) return;
  auto token = it->second.token;
  reads_.erase(it);
  std::erase(turns_, op);
  conn_.unborrow(op);
  producer_.read_ended(token, *this, op);
}

void Session::stop_read(uint64_t op) {
  auto it = reads_.find(op);
  if (it == reads_.end() || it->second.stopped) return;
  bool wait = it->second.transport->reader_touches_pool();
  it->second.stopped = true;
  std::erase(turns_, op);
  if (!wait) forget(op);  // before FAILED is queued: drops the chunks that would go out ahead of it
  fail_read(op, {Code::kAborted, "the producer took the grant back"});
}

void Session::pump() {
  if (pumping_ || pump_timer_.first != 0) return;  // sending calls on_drained(); the timer goes on
  pumping_ = true;
  size_t done = 0, idle = 0;
  while (!turns_.empty() && idle < turns_.size() && conn_.queued_bytes() < kSendQueueBytes) {
    if (done >= kPumpBytes) {
      pump_timer_ = context_.loop.after(0, [this] {
        pump_timer_ = {};
        pump();
      });
      break;
    }
    auto op = turns_.front();
    turns_.pop_front();
    auto& read = reads_.at(op);
    auto before = read.next;
    idle = send_chunk(op, read) ? 0 : idle + 1;
    done += (read.next - before) * read.cut.bytes();
    if (read.next < read.blocks.size()) turns_.push_back(op);
  }
  pumping_ = false;
}

bool Session::send_chunk(uint64_t op, Read& read) {
  auto n = std::min(read.chunk_blocks, read.blocks.size() - read.next);
  auto bytes = n * read.cut.bytes();
  if (read.credit < bytes) return false;
  read.credit -= bytes;
  ChunkHead head{.op = op,
                 .first_block = static_cast<uint32_t>(read.next),
                 .n_blocks = static_cast<uint32_t>(n),
                 .checksum = 0,
                 .block_bytes = bytes};
  auto blocks = std::span(read.blocks).subspan(read.next, n);
  read.next += n;
  read.transport->send(conn_, head, blocks, read.cut);
  return true;
}

}  // namespace baton::transfer
