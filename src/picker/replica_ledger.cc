#include "picker/replica_ledger.h"

#include <algorithm>
#include <cstring>

#include "base/sha256.h"

namespace baton::picker {
namespace {

constexpr std::string_view kMagic = "BRD1";
constexpr uint8_t kSnapshot = 1, kDelta = 2, kPrefixes = 3, kWant = 4, kPart = 5;

void put_fixed(std::string& out, uint64_t v) { out.append(reinterpret_cast<const char*>(&v), sizeof v); }
void put_number(std::string& out, uint64_t v) {
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  out += static_cast<char>(v);
}
void put_text(std::string& out, std::string_view text) {
  text = text.substr(0, kReplicaTextBytesMax);
  put_number(out, text.size());
  out += text;
}
void put_counts(std::string& out, std::span<const ReplicaCount> counts) {
  put_number(out, counts.size());
  for (const ReplicaCount& c : counts) {
    put_text(out, c.address);
    put_number(out, static_cast<uint64_t>(std::max<int64_t>(c.requests, 0)));
    put_number(out, static_cast<uint64_t>(std::max<int64_t>(c.tokens, 0)));
  }
}

void put_prefixes(std::string& out, std::span<const ReplicaPrefix> prefixes) {
  put_number(out, prefixes.size());
  for (const ReplicaPrefix& p : prefixes) {
    put_text(out, p.address);
    put_number(out, p.hashes.size());
    for (const uint64_t hash : p.hashes) put_fixed(out, hash);
  }
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  bool ok() const { return ok_; }
  bool done() const { return ok_ && left_.empty(); }
  uint64_t fixed() {
    uint64_t v = 0;
    const std::string_view raw = take(sizeof v);
    if (raw.size() == sizeof v) std::memcpy(&v, raw.data(), sizeof v);
    return v;
  }
  uint64_t number() {
    uint64_t v = 0;
    for (int shift = 0; shift < 63; shift += 7) {
      const std::string_view raw = take(1);
      if (raw.empty()) return 0;
      const auto byte = static_cast<uint8_t>(raw[0]);
      v |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return v;
    }
    ok_ = false;
    return 0;
  }
  std::string_view text() {
    const uint64_t n = number();
    if (n > kReplicaTextBytesMax) ok_ = false;
    return ok_ ? take(n) : std::string_view();
  }
  size_t count(size_t max, size_t bytes_each) {
    const uint64_t n = number();
    if (n > max || n * bytes_each > left_.size()) ok_ = false;
    return ok_ ? n : 0;
  }
  std::string_view take(size_t n) {
    if (n > left_.size()) ok_ = false;
    if (!ok_) return {};
    const std::string_view out = left_.substr(0, n);
    left_.remove_prefix(n);
    return out;
  }

 private:
  std::string_view left_;
  bool ok_ = true;
};

std::vector<ReplicaPrefix> read_prefixes(Reader& in) {
  std::vector<ReplicaPrefix> out;
  size_t hashes = 0;
  for (size_t n = in.count(kReplicaHashesMax, 2); n-- > 0 && in.ok();) {
    ReplicaPrefix& p = out.emplace_back();
    p.address = in.text();
    size_t m = in.count(kReplicaHashesMax - hashes, 8);
    hashes += m;
    p.hashes.reserve(m);
    while (m-- > 0) p.hashes.push_back(in.fixed());
  }
  return out;
}

uint64_t token_digest(std::string_view token) {
  if (token.empty()) return 0;
  const Digest digest = Sha256().update(token).finish();
  uint64_t v = 0;
  std::memcpy(&v, digest.data(), sizeof v);
  return v;
}

}  // namespace

ReplicaLedger::ReplicaLedger(std::string name, uint64_t incarnation, std::string_view token, int64_t ttl_ms)
    : name_(std::move(name)), incarnation_(incarnation), token_(token_digest(token)), ttl_ms_(ttl_ms) {}

std::string ReplicaLedger::head(uint8_t kind) {
  std::string out(kMagic);
  put_fixed(out, token_);
  put_fixed(out, incarnation_);
  put_fixed(out, ++sequence_);
  out += static_cast<char>(kind);
  put_text(out, name_);
  return out;
}

std::string ReplicaLedger::snapshot(std::span<const ReplicaCount> now) {
  now = now.first(std::min(now.size(), kReplicaCountsMax));
  said_.clear();
  std::vector<ReplicaCount> busy;
  for (const ReplicaCount& c : now) {
    if (c.requests == 0 && c.tokens == 0) continue;
    said_[c.address] = c;
    busy.push_back(c);
  }
  std::string out = head(kSnapshot);
  put_counts(out, busy);
  return out;
}

std::string ReplicaLedger::delta(std::span<const ReplicaCount> now) {
  now = now.first(std::min(now.size(), kReplicaCountsMax));
  std::vector<ReplicaCount> changed;
  std::map<std::string, ReplicaCount, std::less<>> next;
  for (const ReplicaCount& c : now) {
    const auto before = said_.find(c.address);
    const bool idle = c.requests == 0 && c.tokens == 0;
    if (before == said_.end() ? !idle : before->second != c) changed.push_back(c);
    if (!idle) next[c.address] = c;
  }
  for (const auto& [address, c] : said_) {  // endpoints that left
    const bool listed = std::ranges::any_of(now, [&](const ReplicaCount& n) { return n.address == address; });
    if (!listed && changed.size() < kReplicaCountsMax) changed.push_back({.address = address});
  }
  said_ = std::move(next);
  if (changed.empty()) return {};
  std::string out = head(kDelta);
  put_counts(out, changed);
  return out;
}

std::string ReplicaLedger::prefixes(std::span<const ReplicaPrefix> prefixes) {
  std::string out = head(kPrefixes);
  put_prefixes(out, prefixes);
  return out;
}

std::string ReplicaLedger::want(std::string_view of) {
  std::string out = head(kWant);
  put_text(out, of);
  return out;
}

std::string ReplicaLedger::part(std::string_view to, std::span<const ReplicaPrefix> held, bool last) {
  std::string out = head(kPart);
  put_text(out, to);
  put_number(out, last ? 1 : 0);
  put_prefixes(out, held);
  return out;
}

std::vector<std::string> ReplicaLedger::names() const {
  std::vector<std::string> out;
  for (const auto& [name, peer] : peers_) out.push_back(name);
  return out;
}

Result<bool> ReplicaLedger::receive(std::string_view message, int64_t now_ms, std::vector<ReplicaPrefix>& learnt,
                                    ReplicaNews* news) {
  if (message.size() > kReplicaMessageBytesMax)
    return fail(Code::kResourceExhausted, "replica message of ", message.size(), " bytes");
  Reader in(message);
  if (in.take(kMagic.size()) != kMagic) return fail(Code::kInvalidArgument, "not a replica's message");
  if (in.fixed() != token_) return fail(Code::kPermissionDenied, "a replica's token differs from ours");
  const uint64_t incarnation = in.fixed(), sequence = in.fixed();
  const std::string_view raw_kind = in.take(1), name = in.text();
  if (!in.ok()) return fail(Code::kInvalidArgument, "replica message is cut short");
  if (incarnation == incarnation_) return false;
  const auto kind = static_cast<uint8_t>(raw_kind[0]);

  std::vector<ReplicaCount> counts;
  std::vector<ReplicaPrefix> prefixes;
  std::string_view to;
  bool last = false;
  if (kind == kSnapshot || kind == kDelta) {
    for (size_t n = in.count(kReplicaCountsMax, 3); n-- > 0 && in.ok();) {
      ReplicaCount& c = counts.emplace_back();
      c.address = in.text();
      c.requests = static_cast<int64_t>(std::min<uint64_t>(in.number(), 1u << 30));
      c.tokens = static_cast<int64_t>(std::min<uint64_t>(in.number(), 1ull << 50));
    }
  } else if (kind == kPrefixes) {
    prefixes = read_prefixes(in);
  } else if (kind == kWant) {
    to = in.text();
  } else if (kind == kPart) {
    to = in.text();
    last = in.number() == 1;
    prefixes = read_prefixes(in);
  } else {
    return fail(Code::kUnimplemented, "replica message of kind ", static_cast<int>(kind));
  }
  if (!in.done()) return fail(Code::kInvalidArgument, "replica message is broken");

  auto at = peers_.find(name);
  if (at == peers_.end()) {
    if (peers_.size() >= kReplicaPeersMax) return fail(Code::kResourceExhausted, "more than ", kReplicaPeersMax, " replicas");
    at = peers_.emplace(std::string(name), Peer{.incarnation = incarnation, .sequence = sequence - 1, .counts = {}}).first;
  }
  Peer& peer = at->second;
  bool changed = false;
  if (peer.incarnation != incarnation) {
    changed = !peer.counts.empty();
    peer = Peer{.incarnation = incarnation, .sequence = sequence - 1, .counts = {}};
  }
  if (sequence <= peer.sequence) return changed;  // old, or twice
  gaps_ += sequence - peer.sequence - 1;
  peer.sequence = sequence;
  peer.heard_ms = now_ms;
  if (kind == kWant || kind == kPart) {
    if (news == nullptr || to != name_) return changed;
    if (kind == kWant) {
      news->wanted_by.emplace_back(name);
    } else {
      std::ranges::move(prefixes, std::back_inserter(news->older));
      news->part = true;
      news->last |= last;
    }
    return changed;
  }
  std::ranges::move(prefixes, std::back_inserter(learnt));
  if (kind == kPrefixes) return changed;
  if (kind == kSnapshot) peer.counts.clear();
  for (ReplicaCount& c : counts) {
    if (c.requests == 0 && c.tokens == 0)
      peer.counts.erase(c.address);
    else if (peer.counts.size() < kReplicaCountsMax || peer.counts.contains(c.address))
      peer.counts[c.address] = std::move(c);
  }
  return true;
}

bool ReplicaLedger::expire(int64_t now_ms) {
  return std::erase_if(peers_, [&](const auto& p) { return now_ms - p.second.heard_ms >= ttl_ms_; }) > 0;
}

std::vector<ReplicaCount> ReplicaLedger::totals() const {
  std::map<std::string_view, ReplicaCount> sums;
  for (const auto& [name, peer] : peers_) {
    for (const auto& [address, c] : peer.counts) {
      ReplicaCount& sum = sums[address];
      sum.address = address;
      sum.requests += c.requests;
      sum.tokens += c.tokens;
    }
  }
  std::vector<ReplicaCount> out;
  for (auto& [address, sum] : sums) out.push_back(std::move(sum));
  return out;
}

}  // namespace baton::picker
