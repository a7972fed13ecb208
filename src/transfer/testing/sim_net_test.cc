#include "transfer/testing/sim_net.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

namespace baton::transfer::testing {
namespace {

// Small, so that chunks queue in the sender as they do on a slow network.
constexpr int kSendBufferBytes = 2304;

std::pair<Fd, Fd> socket_pair() {
  int ends[2];
  BATON_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
  for (int fd : ends) ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSendBufferBytes, sizeof kSendBufferBytes);
  return {Fd(ends[0]), Fd(ends[1])};
}

bool matches(SimFault::What what, FrameType type) {
  bool blocks = type == FrameType::kChunk;
  return what == SimFault::What::kAny || (what == SimFault::What::kBlocks) == blocks;
}

std::vector<uint64_t> ops_of(FrameType type, std::span<const std::byte> body) {
  uint64_t op = 0;
  switch (type) {
    case FrameType::kOpened:
    case FrameType::kChunk:
    case FrameType::kCompleted:
    case FrameType::kClose:  // they begin with it
      std::memcpy(&op, body.data(), sizeof op);
      return {op};
    case FrameType::kKeep:
      return decode<Keep>(body)->ops;
    default:
      return {};
  }
}

}  // namespace

std::string describe(const SimFault& f) {
  static constexpr std::string_view kKinds[] = {"drop", "double", "swap", "flip", "cut", "cut inside", "hold"};
  static constexpr std::string_view kWhats[] = {"any frame", "control", "blocks"};
  return cat(kKinds[static_cast<size_t>(f.kind)], " of ", kWhats[static_cast<size_t>(f.what)],
             f.to_consumer ? " to the consumer" : " to the producer", f.hold_ms > 0 ? cat(" ", f.hold_ms, " ms") : "");
}

std::pair<Fd, Fd> SimNet::connect(int consumer, int producer) {
  auto wire = std::make_unique<Wire>();
  auto [consumers, ours] = socket_pair();
  auto [producers, ours_too] = socket_pair();
  wire->id = {consumer, producer, next_wire_++};
  wire->consumer_end = std::move(ours), wire->producer_end = std::move(ours_too);
  auto &up = wire->directions[0], &down = wire->directions[1];
  up.from = down.to = &wire->consumer_end;
  up.to = down.from = &wire->producer_end;
  down.to_consumer = true;
  wire->latency_ms = prng_.between(0, 8);
  wires_.push_back(std::move(wire));
  return {std::move(consumers), std::move(producers)};
}

bool SimNet::arm(SimFault fault, size_t wire) {
  if (wire >= wires_.size()) return false;
  auto& w = *wires_[wire];
  observer_.disturbed(w.id.consumer, w.id.producer);
  if (fault.kind == SimFault::Kind::kHold) {
    w.hold_until_ms = clock_.now_ms() + fault.hold_ms;
    ++faults_done;
  } else {
    w.directions[fault.to_consumer ? 1 : 0].fault = fault;
  }
  return true;
}

bool SimNet::serves(uint64_t wire) const {
  auto it = std::ranges::find_if(wires_, [&](const auto& w) { return w->id.number == wire; });
  if (it == wires_.end()) return false;
  pollfd end{(*it)->producer_end.get(), 0, 0};
  return ::poll(&end, 1, 0) == 0;  // else it hung up
}

void SimNet::heal() {
  for (auto& w : wires_) {
    w->hold_until_ms = 0;
    w->latency_ms = 1;
    for (auto& d : w->directions) d.fault.reset();
  }
}

void SimNet::pump() {
  polled_.clear();
  for (auto& w : wires_) {
    for (auto& d : w->directions) polled_.push_back({d.from->get(), POLLIN, 0});
  }
  ::poll(polled_.data(), polled_.size(), 0);
  size_t at = 0;
  for (auto& w : wires_) {
    for (auto& d : w->directions) {
      if (polled_[at++].revents != 0 && !w->dead) read(*w, d);
    }
    bool held = w->hold_until_ms > clock_.now_ms();
    if (held || w->unnoticed) observer_.disturbed(w->id.consumer, w->id.producer);
    if (held) continue;
    for (auto& d : w->directions) {
      if (!w->dead) deliver(*w, d);
    }
  }
  std::erase_if(wires_, [](const auto& w) { return w->dead; });  // closes both ends: each side sees the end of its stream
}

void SimNet::read(Wire& wire, Direction& d) {
  char part[16384];
  while (!d.ended) {
    auto n = ::recv(d.from->get(), part, sizeof part, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (n <= 0) {
      d.ended = true;
      break;
    }
    d.partial.append(part, static_cast<size_t>(n));
  }
  split(wire, d);
  if (d.cut) d.partial.clear();
  if (d.ended && !d.partial.empty()) {
    d.queue.push_back({std::exchange(d.partial, {}), clock_.now_ms() + wire.latency_ms, FrameType{}, {}});
  }
}

void SimNet::split(Wire& wire, Direction& d) {
  size_t at = 0;
  while (d.partial.size() - at >= kFrameHeaderBytes && !wire.dead) {
    auto all = std::as_bytes(std::span(d.partial)).subspan(at);
    auto header = decode_header(all.first(kFrameHeaderBytes));
    BATON_CHECK(header.has_value());  // nobody here lies: what a node sends is well formed
    if (all.size() < kFrameHeaderBytes + header->length) break;
    auto type = static_cast<FrameType>(header->type);
    if (d.cut) break;
    observer_.sent(wire.id, type, all.subspan(kFrameHeaderBytes, header->length));
    pass(wire, d, d.partial.substr(at, kFrameHeaderBytes + header->length), type);
    at += kFrameHeaderBytes + header->length;
  }
  d.partial.erase(0, at);
}

// Queues the frame, or what the armed fault makes of it.
void SimNet::pass(Wire& wire, Direction& d, std::string frame, FrameType type) {
  auto due = clock_.now_ms() + wire.latency_ms;
  if (!d.queue.empty()) due = std::max(due, d.queue.back().due_ms);
  bool swap = std::exchange(d.swap_next, false) && !d.queue.empty();
  auto ops = ops_of(type, std::as_bytes(std::span(frame)).subspan(kFrameHeaderBytes));
  d.queue.push_back({std::move(frame), due, type, std::move(ops)});
  if (swap) {
    auto &last = d.queue.back(), &before = d.queue[d.queue.size() - 2];
    std::swap(last, before);
    std::swap(last.due_ms, before.due_ms);
  }
  if (!d.fault || !matches(d.fault->what, type)) return;
  auto fault = *std::exchange(d.fault, std::nullopt);
  observer_.disturbed(wire.id.consumer, wire.id.producer);
  observer_.damaged(wire.id);
  ++faults_done;
  bool lost = fault.kind == SimFault::Kind::kDrop || fault.kind == SimFault::Kind::kFlip;
  wire.unnoticed = wire.unnoticed || (lost && d.to_consumer && !d.queue.back().ops.empty());
  auto& bytes = d.queue.back().bytes;
  switch (fault.kind) {
    case SimFault::Kind::kDrop:
      return d.queue.pop_back();
    case SimFault::Kind::kDouble:
      return d.queue.push_back(Packet(d.queue.back()));
    case SimFault::Kind::kSwap:
      d.queue.back().due_ms += 40;  // time for the one behind it
      d.swap_next = true;
      return;
    case SimFault::Kind::kFlip: {
      auto from = type == FrameType::kChunk && fault.what == SimFault::What::kBlocks && bytes.size() > 48 ? size_t{48} : 0;
      bytes[from + prng_.below(bytes.size() - from)] ^= static_cast<char>(1 << prng_.below(8));
      return;
    }
    case SimFault::Kind::kCutInside:
      bytes.resize(prng_.below(bytes.size()));
      [[fallthrough]];
    case SimFault::Kind::kCut:
      d.ended = d.cut = true;
      return;
    case SimFault::Kind::kHold:
      return;
  }
}

void SimNet::deliver(Wire& wire, Direction& d) {
  while (!d.queue.empty() && d.queue.front().due_ms <= clock_.now_ms()) {
    auto& p = d.queue.front();
    // Sometimes only a part now: receivers stand in the middle of a frame while other things happen.
    auto want = p.bytes.size() > 1 && prng_.chance(0.1) ? 1 + prng_.below(p.bytes.size() - 1) : p.bytes.size();
    auto n = ::send(d.to->get(), p.bytes.data(), want, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      wire.dead = true;
      return;
    }
    if (d.to_consumer) observer_.delivered(wire.id, p.ops);
    p.bytes.erase(0, static_cast<size_t>(n));
    if (!p.bytes.empty()) return;
    if (p.type == FrameType::kClose) observer_.closed(wire.id, p.ops.front());
    d.queue.pop_front();
  }
  if (d.ended && d.queue.empty()) wire.dead = true;
}

}  // namespace baton::transfer::testing
