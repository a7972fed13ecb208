#pragma once
// Joint: one fetch whose bytes come from several ranks of the producer. Each part runs as a fetch of its own; the one event comes
// when the last of them has ended, so no part writes after it. What all parts have is valid; the first failure stops the others.
// Threads: the node's loop.
#include <functional>

#include "transfer/context.h"

namespace baton::transfer {

class Joint {
 public:
  Joint(Context& context, const Fetch& fetch, size_t parts, std::function<void()> stop_others)
      : context_(context), left_(parts), stop_others_(std::move(stop_others)) {
    event_.kind = Event::Kind::kFetched;
    event_.request = fetch.request;
    event_.valid_tokens = fetch.n_tokens;
  }

  void ended(Event part) {
    event_.valid_tokens = std::min(event_.valid_tokens, part.valid_tokens);
    event_.bytes += part.bytes;
    event_.seconds = std::max(event_.seconds, part.seconds);
    if (event_.transport.empty()) event_.transport = part.transport;
    bool first_failure = part.error && !event_.error;
    if (first_failure) event_.error = std::move(part.error);
    if (--left_ == 0) return context_.emit(std::move(event_));
    if (first_failure) context_.loop.defer(stop_others_);
  }

 private:
  Context& context_;
  size_t left_;
  std::function<void()> stop_others_;
  Event event_;
};

// Which part of a fetch one link is to read.
struct FetchPart {
  kv::ShardPart part;
  uint16_t readers = 1;          // ranks of our engine that read from this grant
  std::shared_ptr<Joint> joint;  // null: the only part
};

}  // namespace baton::transfer
