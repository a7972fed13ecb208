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
    if (!grant.engine_id.empty() && peer.link->is(grant.engine_id)) return peer.link.get();
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

void Consumer::fetch(Fetch fetch) {
  auto invalid = [&](std::string_view why) { emit_fetch_failed(context_, fetch, {Code::kInvalidArgument, std::string(why)}); };
  auto bt = context_.layout.block_tokens;
  auto token = token_from(fetch.grant.token);
  if (!token) return invalid(token.error().message);
  if (fetch.n_tokens <= 0 || fetch.first_token < 0 || fetch.first_token % bt != 0 ||
      fetch.first_token > INT32_MAX - fetch.n_tokens - bt)
    return invalid("a fetch begins at a block and has tokens");
  if (fetch.blocks.size() != static_cast<size_t>((fetch.n_tokens + bt - 1) / bt))
    return invalid("destination blocks do not match the tokens");
  for (auto b : fetch.blocks) {
    if (!context_.pool.has(b)) return invalid("a destination block is not in the pool");
  }
  auto* link = find_or_add(fetch.grant);
  if (link != nullptr && fetch.push) {
    unhold(*token);
    return link->fetch_when_connected(std::move(fetch), *token);
  }
  if (link == nullptr || !link->connected()) {
    auto why = link == nullptr ? std::string("no such peer") : link->status().detail;
    unhold(*token);
    if (link != nullptr) link->decline(*token);  // once connected: nobody will come for it
    return emit_fetch_failed(
        context_, fetch,
        {Code::kUnavailable, cat("kv peer ", fetch.grant.host, ":", fetch.grant.port, " is not connected: ", why)});
  }
  unhold(*token);  // renewed as an open fetch from now on
  link->fetch(std::move(fetch), *token);
}

void Consumer::cancel(uint64_t request) {
  for (auto& [address, peer] : peers_) {
    if (peer.link->cancel(request)) return;
  }
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
