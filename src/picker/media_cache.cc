#include "picker/media_cache.h"

namespace baton::picker {

int64_t media_size(const Asset& asset) {
  switch (asset.kind) {
    case AssetKind::kVideo:
      return kVideoTokens;
    case AssetKind::kAudio:
      return kAudioTokens;
    case AssetKind::kImage:
    case AssetKind::kFile:
      break;
  }
  return kImageTokens;
}

std::string_view media_kind(AssetKind kind) {
  constexpr std::string_view kNames[] = {"image", "audio", "video", "file"};
  return kNames[static_cast<size_t>(kind)];
}

int64_t MediaCache::matched(std::span<const Asset> assets, int slot) const {
  const std::lock_guard lock(mutex_);
  const auto& worker = workers_[static_cast<size_t>(slot)];
  int64_t size = 0;
  for (const Asset& asset : assets) {
    if (worker != nullptr && worker->items.contains(asset.hash)) size += media_size(asset);
  }
  return size;
}

void MediaCache::record(std::span<const Asset> assets, int slot) {
  const std::lock_guard lock(mutex_);
  auto& worker = workers_[static_cast<size_t>(slot)];
  if (worker == nullptr) worker = std::make_unique<Worker>();
  for (const Asset& asset : assets) {
    const auto [at, fresh] = worker->items.try_emplace(asset.hash);
    if (!fresh) {
      worker->order.splice(worker->order.begin(), worker->order, at->second);
      continue;
    }
    worker->order.push_front(asset.hash);
    at->second = worker->order.begin();
    if (worker->items.size() <= kMediaItemsMax) continue;
    worker->items.erase(worker->order.back());
    worker->order.pop_back();
  }
}

void MediaCache::forget(int slot) {
  const std::lock_guard lock(mutex_);
  workers_[static_cast<size_t>(slot)].reset();
}

}  // namespace baton::picker
