#pragma once
// KvEventPublisher: tells over ZeroMQ what the prefix cache stores and drops, as vLLM does, so that a picker knows who holds
// which prompt: frames [topic, 8-byte big-endian sequence, MessagePack batch], one batch a step; the last buffer_steps of them
// are sent again to who asks the replay socket [empty, be64 first sequence], ending with sequence -1. Hashes go out as 64-bit
// integers, the last eight bytes of ours. publish() never waits: over queue_max batches the oldest is lost, and its number shows
// the gap. Threads: publish() any one; sockets live on a thread of its own. Source: facts sheets "epp" 4.7, "kv_transfer" 3.1.
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/config.h"
#include "kv/block_pool.h"

namespace baton::engine {

class KvEventPublisher {
 public:
  static Result<std::unique_ptr<KvEventPublisher>> start(const KvEventsConfig& config, int block_tokens);
  ~KvEventPublisher();  // what was published is sent first, as far as somebody takes it
  void publish(std::vector<kv::CacheChange> changes);
  std::string endpoint() const, replay_endpoint() const;  // as bound: with the port that "*" became

 private:
  struct Impl;
  explicit KvEventPublisher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::engine
