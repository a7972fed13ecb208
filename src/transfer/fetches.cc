#include "transfer/fetches.h"

#include "base/log.h"

namespace baton::transfer {

void emit_fetch_failed(Context& context, const Fetch& fetch, Error why, Joint* joint) {
  context.stats.failure(why.code);
  Event event;
  event.kind = Event::Kind::kFetched;
  event.request = fetch.request;
  event.error = std::move(why);
  if (joint != nullptr) return joint->ended(std::move(event));
  context.emit(std::move(event));
}

Fetches::Fetches(Context& context, Conn& conn, std::unique_ptr<Transport> transport, const kv::KvShard& peer)
    : context_(context), conn_(conn), transport_(std::move(transport)), peer_(peer) {}

Fetches::~Fetches() { fail_all({Code::kUnavailable, "the peer is no longer wanted"}); }

Fetches::Map::iterator Fetches::find(uint64_t op) { return ops_.find(op); }

Target Fetches::Op::target(const ChunkHead& head) const {
  Target t{.head = head, .to = {}, .n_blocks = head.n_blocks, .cut = placement.cut(), .payload_max = chunk_bytes};
  if (placement.direct()) t.to = std::span(fetch.blocks).subspan(head.first_block, head.n_blocks);
  return t;
}

void Fetches::start(Fetch fetch, const Token& token, int64_t asked_ms, FetchPart part) {
  auto id = next_op_++;
  Placement placement(peer_, context_.shard, part.part, {fetch.blocks, fetch.first_token, fetch.n_tokens});
  auto chunk = std::max(context_.options.chunk_bytes, placement.wire_block_bytes());
  FetchMsg message{.op = id,
                   .token = token,
                   .incarnation = fetch.grant.incarnation,
                   .digest = fetch.prompt_digest,
                   .first_token = placement.first_token(),
                   .n_tokens = placement.n_tokens(),
                   .path = transport_->path(),
                   .chunk_bytes = static_cast<uint32_t>(std::min(chunk, kChunkPayloadMax)),
                   .credit = chunk * kChunksInFlight,
                   .readers = part.readers,
                   .layer_first = part.part.layer_first,
                   .layers = part.part.layers,
                   .head_first = part.part.head_first,
                   .heads = part.part.heads};
  bool push = fetch.push;
  Op op{.fetch = std::move(fetch),
        .placement = placement,
        .joint = std::move(part.joint),
        .token = token,
        .chunk_bytes = std::min(chunk, kChunkPayloadMax),
        .completed = !push,
        .asked_ms = asked_ms,
        .started_ns = context_.loop.clock().now_ns()};
  op.progress_ms = context_.loop.now_ms();
  ops_.emplace(id, std::move(op));
  conn_.send(push ? encode(Await{message}) : encode(message));
  watch_progress(id);
}

void Fetches::watch_progress(uint64_t op) {
  auto& o = ops_.at(op);
  o.timer = context_.loop.at(o.progress_ms + context_.options.fetch_timeout_ms, [this, op] {
    auto it = find(op);
    if (context_.loop.now_ms() - it->second.progress_ms < context_.options.fetch_timeout_ms) return watch_progress(op);
    give_up(it, {Code::kDeadlineExceeded, cat("no progress for ", context_.options.fetch_timeout_ms, " ms")});
  });
}

bool Fetches::cancel(uint64_t request) {
  for (auto it = ops_.begin(); it != ops_.end(); ++it) {
    if (it->second.fetch.request != request) continue;
    give_up(it, {Code::kCancelled, "cancelled"});
    return true;
  }
  return false;
}

void Fetches::fail_all(const Error& why) {
  while (!ops_.empty()) finish(ops_.begin(), why);
}

void Fetches::append_tokens(std::vector<Token>& out) const {
  for (const auto& [id, op] : ops_) out.push_back(op.token);
}

// What began in the same millisecond was perhaps not named: the next answer is about it too.
void Fetches::renewed(int64_t asked_ms, int64_t until_ms) {
  for (auto& [id, op] : ops_) {
    if (op.asked_ms < asked_ms) op.read_until_ms = std::max(op.read_until_ms, until_ms);
  }
}

void Fetches::give_up(Map::iterator it, Error why) {
  conn_.send(encode(Close{it->first, false}));
  finish(it, std::move(why));
}

void Fetches::finish(Map::iterator it, std::optional<Error> why) {
  if (landing_op_ == it->first) conn_.drop_landing();
  std::erase_if(early_, [&](const auto& a) { return a.head.op == it->first; });
  auto op = std::move(it->second);
  context_.loop.cancel(op.timer);
  ops_.erase(it);
  Event event;
  event.kind = Event::Kind::kFetched;
  event.request = op.fetch.request;
  event.valid_tokens = op.placement.valid_tokens(op.verified, op.destination());
  event.bytes = op.verified * op.placement.wire_block_bytes();
  event.seconds = static_cast<double>(context_.loop.clock().now_ns() - op.started_ns) * 1e-9;
  event.transport = path_name(transport_->path());
  auto& stats = context_.stats;
  if (why) {
    if (why->code != Code::kCancelled) stats.failure(why->code);
  } else {
    stats.moved(path(), event.bytes, event.seconds, op.verified);
  }
  event.error = std::move(why);
  if (op.joint) return op.joint->ended(std::move(event));
  context_.emit(std::move(event));
}

Result<> Fetches::on_opened(const Opened& opened) {
  auto it = find(opened.op);
  if (it == ops_.end())
    return opened.op < next_op_ ? Result<>{} : fail(Code::kInvalidArgument, "OPENED for a fetch that never was");
  auto& op = it->second;
  if (op.opened || opened.blocks != op.placement.blocks())
    return fail(Code::kInvalidArgument, "the peer opened ", opened.blocks, " blocks, asked were ", op.placement.blocks());
  op.opened = true;
  op.progress_ms = context_.loop.now_ms();
  // Counted from when we asked, which is before the producer counted.
  op.read_until_ms = std::max(op.read_until_ms, op.asked_ms + static_cast<int64_t>(opened.read_ms));
  context_.stats.post_seconds.observe(static_cast<double>(context_.loop.clock().now_ns() - op.started_ns) * 1e-9);
  return take_arrivals();
}

Result<> Fetches::on_completed(const Completed& completed) {
  auto it = find(completed.op);
  if (it == ops_.end()) return completed.op < next_op_ ? Result<>{} : fail(Code::kInvalidArgument, "COMPLETED for no fetch");
  auto& op = it->second;
  if (!op.opened || op.completed) return fail(Code::kInvalidArgument, "COMPLETED out of turn");
  if (completed.first_token < -1 || completed.cached_tokens < 0) return fail(Code::kOutOfRange, "COMPLETED of nonsense");
  op.completed = true;
  op.progress_ms = context_.loop.now_ms();
  constexpr uint64_t kMicrosMax = uint64_t{1} << 50;
  Event event;
  event.kind = Event::Kind::kCompletion;
  event.request = op.fetch.request;
  event.transport = path_name(transport_->path());
  event.bytes = op.placement.blocks() * op.placement.wire_block_bytes();  // of the whole fetch
  if (completed.first_token >= 0) event.completion.first_token = completed.first_token;
  event.completion.queue_us = static_cast<int64_t>(std::min(completed.queue_us, kMicrosMax));
  event.completion.prefill_us = static_cast<int64_t>(std::min(completed.prefill_us, kMicrosMax));
  event.completion.cached_tokens = completed.cached_tokens;
  context_.emit(std::move(event));
  finish_if_whole(it);
  return {};
}

// The producer waits for its model, not for the wire: that is no lack of progress.
Result<> Fetches::on_keep(const Keep& keep) {
  for (auto op : keep.ops) {
    if (auto it = find(op); it != ops_.end()) it->second.progress_ms = context_.loop.now_ms();
  }
  return {};
}

void Fetches::finish_if_whole(Map::iterator it) {
  auto& op = it->second;
  if (!op.completed || op.verified < op.placement.blocks()) return;
  conn_.send(encode(Close{it->first, true}));
  finish(it, std::nullopt);
}

Result<> Fetches::on_failed(const Failed& failed) {
  auto it = find(failed.op);
  if (it == ops_.end()) return {};  // crossed our CLOSE
  auto code = failed.code > 0 && failed.code <= static_cast<uint16_t>(Code::kUnauthenticated) ? static_cast<Code>(failed.code)
                                                                                              : Code::kUnknown;
  // A refused grant may still stand over there, and nobody will come for it again.
  if (!it->second.opened) conn_.send(encode(Decline{it->second.token}));
  give_up(it, {code, cat("peer: ", failed.message)});  // CLOSE tells the producer that we read no more
  return {};
}

Result<Landing> Fetches::on_chunk(const ChunkHead& head, size_t payload_bytes) {
  landing_op_ = 0;
  auto it = find(head.op);
  if (it == ops_.end())
    return head.op < next_op_ ? Result<Landing>(Landing{}) : fail(Code::kInvalidArgument, "chunk for a fetch that never was");
  auto& op = it->second;
  auto total = op.placement.blocks();
  if (!op.opened || head.n_blocks == 0 || head.first_block != op.announced || head.n_blocks > total - op.announced)
    return fail(Code::kOutOfRange, "chunk of blocks ", head.first_block, " + ", head.n_blocks, " where ", op.announced, " of ",
                total, " are here");
  op.progress_ms = context_.loop.now_ms();
  BATON_TRY(auto landing, transport_->landing(op.target(head), payload_bytes));
  landing_op_ = head.op;
  op.announced += head.n_blocks;
  return landing;
}

Result<> Fetches::on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected) {
  landing_op_ = 0;
  auto it = find(head.op);
  if (it == ops_.end()) return {};  // ended while a collected payload came in
  auto& op = it->second;
  BATON_TRY(auto received, transport_->receive(collected, op.target(head)));
  if (received.later) return {};
  chunk_here(it, head,
             op.placement.direct() ? received.checksum == head.checksum
                                   : op.placement.take(received.staged, head.first_block, head.n_blocks, head.checksum,
                                                       op.destination(), context_.pool));
  return {};
}

void Fetches::chunk_here(Map::iterator it, const ChunkHead& head, bool good) {
  auto& op = it->second;
  auto now = context_.loop.now_ms();
  if (now > op.read_until_ms) return give_up(it, {Code::kDeadlineExceeded, "the lease ended while reading"});
  if (!good) {
    context_.stats.integrity_errors.inc();
    log_warn("kv chunk corrupt", "request={} engine={} first_block={}", op.fetch.request, op.fetch.grant.engine_id,
             head.first_block);
    return give_up(it, {Code::kDataLoss, "checksum of a chunk differs"});
  }
  op.verified += head.n_blocks;
  op.progress_ms = now;
  auto bytes = head.n_blocks * op.placement.wire_block_bytes();
  context_.stats.received_bytes.inc(static_cast<double>(bytes));
  if (op.verified < op.placement.blocks()) return conn_.send(encode(Credit{head.op, bytes}));
  finish_if_whole(it);
}

Result<> Fetches::on_arrival(const ChunkHead& head, ucx::Staging::Ref bytes) {
  if (path() != Path::kUcx && path() != Path::kUcxGet) return fail(Code::kFailedPrecondition, "blocks beside the connection");
  auto it = find(head.op);
  if (it == ops_.end())
    return head.op != 0 && head.op < next_op_ ? Result<>{} : fail(Code::kInvalidArgument, "chunk for a fetch that never was");
  const auto& place = it->second.placement;
  if (head.n_blocks == 0 || head.first_block < it->second.verified || head.first_block > place.blocks() ||
      head.n_blocks > place.blocks() - head.first_block || bytes->size != head.n_blocks * place.wire_block_bytes() ||
      bytes->size > it->second.chunk_bytes)
    return fail(Code::kOutOfRange, "chunk of blocks ", head.first_block, " + ", head.n_blocks, " with ", bytes->size, " bytes");
  size_t waiting = bytes->size;
  for (const auto& a : early_) waiting += a.head.op == head.op ? a.bytes->size : 0;
  if (waiting > it->second.chunk_bytes * kChunksInFlight) return fail(Code::kOutOfRange, "more than our credit came");
  early_.push_back({head, std::move(bytes)});
  return take_arrivals();
}

Result<> Fetches::take_arrivals() {
  for (size_t i = 0; i < early_.size();) {
    auto it = find(early_[i].head.op);
    bool turn = it != ops_.end() && it->second.opened && early_[i].head.first_block == it->second.verified;
    if (it != ops_.end() && !turn) {
      ++i;
      continue;
    }
    auto a = std::move(early_[i]);
    early_.erase(early_.begin() + static_cast<std::ptrdiff_t>(i));
    if (!turn) continue;  // its fetch has ended
    const auto& op = it->second;
    chunk_here(it, a.head,
               op.placement.take(a.bytes->bytes(), a.head.first_block, a.head.n_blocks, a.head.checksum, op.destination(),
                                 context_.pool));
    i = 0;  // another one's turn may have come
  }
  return {};
}

}  // namespace baton::transfer
