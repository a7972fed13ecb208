#pragma once
// FakeNode: a transfer::TransferNode in memory, for Core tests: two of them joined by join() hand blocks over by memcpy, when and
// how the test says. Counts what is owed: every grant ends released, declined or expired. Single threaded.
#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <set>

#include "transfer/transfer.h"

namespace baton::engine::testing {

class FakeNode final : public transfer::TransferNode {
 public:
  FakeNode(std::span<std::byte> pool, kv::KvLayout layout) : pool_(pool), layout_(layout) {}
  void join(FakeNode& producer) { producer_ = &producer; }

  int port() const override { return 1; }
  uint64_t incarnation() const override { return 7; }
  void set_peers(std::vector<std::string>) override {}
  transfer::Grant offer(transfer::Offer offer) override {
    std::string token = cat("00000000000000000000000000000000", offers_made++);
    token = token.substr(token.size() - 32);
    offers[token] = std::move(offer);
    return {.token = token, .incarnation = 7, .engine_id = "e", .host = "h", .port = 1, .lease_ms = 1000};
  }
  Result<transfer::Grant> promise(const std::string& token, transfer::Offer offer) override {
    offers[token] = std::move(offer);
    return transfer::Grant{.token = token, .incarnation = 7, .engine_id = "e", .host = "h", .port = 1, .lease_ms = 1000};
  }
  void progress(uint64_t request, std::vector<int32_t> blocks, int32_t ready_tokens) override {
    auto it = std::ranges::find_if(offers, [&](auto& o) { return o.second.request == request; });
    if (it == offers.end()) {
      if (!blocks.empty()) events.push_back(event_of(transfer::Event::Kind::kPromiseGone, request));
      return;
    }
    if (!blocks.empty()) it->second.blocks = std::move(blocks);
    ready[request].push_back(ready_tokens);
  }
  void complete(uint64_t request, transfer::Completion completion) override { completed[request] = completion; }
  void refuse(const std::string&, Error) override { ++refused; }
  void release(uint64_t request) override {
    std::erase_if(offers, [&](auto& entry) {
      if (entry.second.request != request) return false;
      events.push_back(event_of(transfer::Event::Kind::kGrantReleased, request));
      return true;
    });
  }
  void hold(const transfer::Grant&) override { ++held; }
  void decline(const transfer::Grant& grant) override {
    ++declined;
    if (!producer_ || !producer_->offers.contains(grant.token)) return;
    producer_->release(producer_->offers[grant.token].request);
  }
  void fetch(transfer::Fetch fetch) override { pending.push_back(std::move(fetch)); }
  void cancel(uint64_t request) override { cancelled.push_back(request); }
  std::vector<transfer::Event> poll() override {
    if (auto_complete) {
      while (!pending.empty() && (!pending.front().push || tell_completion())) complete(pending.front().n_tokens, std::nullopt);
    }
    return std::exchange(events, {});
  }
  void set_wakeup(std::function<void()>) override {}
  std::vector<transfer::PeerStatus> peers() const override { return {}; }
  int grants_live() const override { return static_cast<int>(offers.size()); }
  void drain() override {}

  // The oldest fetch is a push whose producer has completed: says so to our core, once. false: it has not.
  bool tell_completion() {
    const transfer::Fetch& fetch = pending.front();
    const auto it = producer_->offers.find(fetch.grant.token);
    if (it == producer_->offers.end() || !producer_->completed.contains(it->second.request)) return false;
    if (!told.insert(fetch.request).second) return true;
    transfer::Event event = event_of(transfer::Event::Kind::kCompletion, fetch.request);
    event.completion = producer_->completed[it->second.request];
    event.bytes = fetch.blocks.size() * layout_.block_bytes();
    events.push_back(std::move(event));
    return true;
  }

  // Ends the oldest fetch with its first n_tokens in place.
  void complete(int32_t n_tokens, std::optional<Error> error) {
    const transfer::Fetch fetch = std::move(pending.front());
    pending.pop_front();
    const auto it = producer_->offers.find(fetch.grant.token);
    if (it == producer_->offers.end() || it->second.prompt_digest != fetch.prompt_digest) {
      n_tokens = 0;
      if (!error) error = Error{Code::kNotFound, "no such grant"};
    }
    const size_t block_bytes = layout_.block_bytes();
    for (int32_t token = 0; token < n_tokens; token += layout_.block_tokens) {
      const auto i = static_cast<size_t>(token / layout_.block_tokens);
      const auto from = static_cast<size_t>(it->second.blocks[static_cast<size_t>(fetch.first_token / layout_.block_tokens) + i]);
      std::memcpy(pool_.data() + static_cast<size_t>(fetch.blocks[i]) * block_bytes, producer_->pool_.data() + from * block_bytes,
                  block_bytes);
    }
    transfer::Event event = event_of(transfer::Event::Kind::kFetched, fetch.request);
    event.valid_tokens = n_tokens;
    event.error = std::move(error);
    event.bytes = static_cast<size_t>(n_tokens) * layout_.token_bytes();
    events.push_back(std::move(event));
    if (it != producer_->offers.end()) producer_->release(it->second.request);
  }

  static transfer::Event event_of(transfer::Event::Kind kind, uint64_t request) {
    transfer::Event event;
    event.kind = kind;
    event.request = request;
    return event;
  }

  std::map<std::string, transfer::Offer> offers;
  std::map<uint64_t, std::vector<int32_t>> ready;  // what progress() said, by request
  std::map<uint64_t, transfer::Completion> completed;
  std::set<uint64_t> told;
  int refused = 0;
  std::deque<transfer::Fetch> pending;
  std::vector<transfer::Event> events;
  std::vector<uint64_t> cancelled;
  int offers_made = 0, held = 0, declined = 0;
  bool auto_complete = true;

 private:
  std::span<std::byte> pool_;
  kv::KvLayout layout_;
  FakeNode* producer_ = nullptr;
};

}  // namespace baton::engine::testing
