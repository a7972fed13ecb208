#pragma once
// MediaCache: which worker was sent which images, sounds and videos, and so has them encoded: the counts of
// mm-embeddings-cache-producer. Optimistic, as the approximate prefix index: it never learns what an engine forgot. Per worker
// the kMediaItemsMax least recently sent are remembered: llm-d's 4,096 MiB a server at 2 MiB an item. Threads: any; one short
// lock. Source: facts sheet "epp" 4.6, 4.7.
#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>

#include "picker/body_reader.h"
#include "picker/limits.h"
#include "route/limits.h"

namespace baton::picker {

int64_t media_size(const Asset& asset);  // its estimate in tokens
std::string_view media_kind(AssetKind kind);

class MediaCache {
 public:
  int64_t matched(std::span<const Asset> assets, int slot) const;  // size of those the worker was sent
  void record(std::span<const Asset> assets, int slot);
  void forget(int slot);

 private:
  struct Worker {
    std::list<uint64_t> order;  // newest first
    std::unordered_map<uint64_t, std::list<uint64_t>::iterator> items;
  };
  mutable std::mutex mutex_;
  std::array<std::unique_ptr<Worker>, route::kEndpointsMax> workers_;
};

}  // namespace baton::picker
