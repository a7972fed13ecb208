#include "transfer/consumer.h"

#include <set>

#include "base/log.h"

namespace baton::transfer {

constexpr int kAdHocFailuresMax = 5;  // a peer that only a grant named is forgotten after so many failures

Consumer::~Consumer() { peers_.clear(); }

Link* Consumer::add(const HostPort& where, bool wanted) {
  auto& peer = peers_[where.text()];
  peer.wanted = wanted;
  peer.link = std::make_unique<Link>(context_, resolver_, where, [this] { publish(); });
  return peer.link.get();
}

void Consumer::set_peers(const std::vector<std::string>& peers) {
  std::set<std::string> wanted;
  for (const auto& text : peers) {
    auto where = parse_host_port(text);
    if (!where || wanted.size() >= kPeersMax) {
      log_warn("kv peer ignored", "peer=\"{}\" why=\"{}\"", text, where ? "too many peers" : where.error().message);
      continue;
    }
    wanted.insert(where->text());
    if (auto it = peers_.find(where->text()); it != peers_.end()) {
      it->second.wanted = true;
    } else {
      add(*where, true);
    }
  }
  std::erase_if(peers_, [&](const auto& p) { return p.second.wanted && !wanted.contains(p.first); });
  publish();
}

// By engine first: a peer may advertise another name for itself than the one we dialled.
Link* Consumer::find(const Grant& grant) {
  for (auto& [address, peer] : peers_) {
    if (!grant.engine_id.empty() && peer.link->is(grant.engine_id, grant.rank)) return peer.link.get();
  }
  auto it = peers_.find(HostPort{grant.host, grant.port}.text());
  return it == peers_.end() ? nullptr : it->second.link.get();
}

Link* Consumer::find_or_add(const Grant& grant) {
  if (auto* link = find(grant)) return link;
  auto ad_hoc = std::count_if(peers_.begin(), peers_.end(), [](const auto& p) { return !p.second.wanted; });
  if (static_cast<size_t>(ad_hoc) >= kAdHocPeersMax || grant.host.empty() || grant.port < 1 || grant.port > 65535) return nullptr;
  log_info("kv peer learnt from a grant", "peer={}:{} engine={}", grant.host, grant.port, grant.engine_id);
  return add({grant.host, grant.port}, false);
}

void Consumer::drop_unwanted() {
  std::erase_if(peers_, [](const auto& p) {
    return !p.second.wanted && !p.second.link->connected() && p.second.link->failures() >= kAdHocFailuresMax;
  });
}

Result<> Consumer::check(const Fetch& fetch) const {
  auto bt = context_.layout().block_tokens;
  if (fetch.n_tokens <= 0 || fetch.first_token < 0 || fetch.first_token % bt != 0 ||
      fetch.first_token > INT32_MAX - fetch.n_tokens - bt)
    return fail(Code::kInvalidArgument, "a fetch begins at a block and has tokens");
  if (fetch.blocks.size() != static_cast<size_t>((fetch.n_tokens + bt - 1) / bt))
    return fail(Code::kInvalidArgument, "destination blocks do not match the tokens");
  for (auto b : fetch.blocks) {
    if (!context_.pool.has(b)) return fail(Code::kInvalidArgument, "a destination block is not in the pool");
  }
  return {};
}

// All of them, or why not; then what was granted is declined wherever that is possible.
Result<std::vector<Consumer::Source>> Consumer::sources_of(const Fetch& fetch) {
  std::vector<Source> out;
  auto add_source = [&](const Grant& grant) -> Result<> {
    BATON_TRY(auto token, token_from(grant.token));
    out.push_back({find_or_add(grant), grant, token});
    return {};
  };
  if (fetch.more.size() >= kRanksMax) return fail(Code::kInvalidArgument, "grants of ", fetch.more.size(), " more ranks");
  BATON_OK(add_source(fetch.grant));
  for (const auto& grant : fetch.more) BATON_OK(add_source(grant));
  std::optional<Error> missing;
  for (const auto& s : out) {
    unhold(s.token);  // renewed as an open fetch from now on
    if (s.link != nullptr && s.link->connected()) continue;
    missing = {Code::kUnavailable, cat("kv peer ", s.grant.host, ":", s.grant.port, " is not connected: ",
                                       s.link == nullptr ? std::string("no such peer") : s.link->status().detail)};
  }
  if (!missing) return out;
  for (const auto& s : out) {
    if (s.link != nullptr) s.link->decline(s.token);  // once connected: nobody will come for it
  }
  return std::unexpected(*missing);
}

void Consumer::fetch(Fetch fetch) {
  auto ok = check(fetch);
  if (!ok) return emit_fetch_failed(context_, fetch, ok.error());
  if (fetch.push) return fetch_push(std::move(fetch));
  auto sources = sources_of(fetch);
  if (!sources) return emit_fetch_failed(context_, fetch, sources.error());
  fetch_from(std::move(fetch), *sources);
}

// Its grant may not exist yet, and its peer may be connecting: both have time while the prompt is computed.
void Consumer::fetch_push(Fetch fetch) {
  auto token = token_from(fetch.grant.token);
  if (!token) return emit_fetch_failed(context_, fetch, token.error());
  unhold(*token);
  auto* link = find_or_add(fetch.grant);
  if (link != nullptr) return link->fetch_when_connected(std::move(fetch), *token);
  emit_fetch_failed(
      context_, fetch,
      {Code::kUnavailable, cat("kv peer ", fetch.grant.host, ":", fetch.grant.port, " is not connected: no such peer")});
}

// Every rank of our engine computes the same of the same shapes: who reads what from whom.
void Consumer::fetch_from(Fetch fetch, const std::vector<Source>& sources) {
  std::vector<kv::KvShard> shards;
  for (const auto& s : sources) shards.push_back(s.link->shard());
  auto parts = kv::parts_for(shards, context_.shard, context_.options.rank);
  std::vector<uint16_t> readers;
  for (size_t i = 0; i < sources.size(); ++i) {
    auto n = kv::readers_of(shards, i, context_.ranks);
    if (!n && parts) parts = std::unexpected(n.error());
    readers.push_back(n ? static_cast<uint16_t>(*n) : 0);
    bool unread = !parts || (readers[i] == 0 && context_.options.rank == 0);
    if (unread) sources[i].link->decline(sources[i].token);
  }
  if (!parts) return emit_fetch_failed(context_, fetch, parts.error());
  std::shared_ptr<Joint> joint;
  if (parts->size() > 1)
    joint = std::make_shared<Joint>(context_, fetch, parts->size(), [this, r = fetch.request] { cancel(r); });
  for (const auto& part : *parts) {
    const auto& s = sources[part.source];
    auto one = fetch;
    one.grant = s.grant;
    one.more.clear();
    s.link->fetch(std::move(one), s.token, {part, readers[part.source], joint});
  }
}

void Consumer::cancel(uint64_t request) {
  for (auto& [address, peer] : peers_) peer.link->cancel(request);  // several of them if it is joint
}

void Consumer::hold(const Grant& grant) {
  auto token = token_from(grant.token);
  if (!token) return;
  if (auto* link = find_or_add(grant)) link->hold(*token);
}

// The link that a grant was held on when its peer was still unknown may be another than the one that serves it now.
void Consumer::unhold(const Token& token) {
  for (auto& [address, peer] : peers_) peer.link->unhold(token);
}

void Consumer::decline(const Grant& grant) {
  auto token = token_from(grant.token);
  if (!token) return;
  unhold(*token);
  if (auto* link = find_or_add(grant)) {
    link->decline(*token);
  } else {
    context_.stats.failed_notifications.inc();
  }
}

// Links change several times in one turn of the loop, and from their constructors: published once, afterwards.
void Consumer::publish() {
  if (std::exchange(publish_due_, true)) return;
  context_.loop.defer([this] {
    publish_due_ = false;
    drop_unwanted();
    std::vector<PeerStatus> all;
    for (const auto& [address, peer] : peers_) all.push_back(peer.link->status());
    std::scoped_lock lock(mutex_);
    published_ = std::move(all);
  });
}

std::vector<PeerStatus> Consumer::status() const {
  std::scoped_lock lock(mutex_);
  return published_;
}

}  // namespace baton::transfer
