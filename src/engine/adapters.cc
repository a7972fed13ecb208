#include "engine/adapters.h"

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "engine/limits.h"
#include "model/lora.h"

namespace baton::engine {

Error no_such_model(std::string_view name) { return {Code::kNotFound, cat("The model `", name, "` does not exist.")}; }

Adapters::Adapters(Load load, std::vector<std::string> base_names, int32_t kept_max)
    : load_(std::move(load)), base_names_(std::move(base_names)), kept_max_(kept_max) {}

Adapters::~Adapters() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<> Adapters::check_name(const std::string& name) const {
  if (std::ranges::find(base_names_, name) != base_names_.end())
    return fail(Code::kFailedPrecondition, "The lora adapter name '", name, "' conflicts with a served base model.");
  // Lists of names in metrics are joined by commas.
  const bool odd = std::ranges::any_of(name, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == ',' || c == 0x7f; });
  if (name.size() > kAdapterNameBytesMax || odd || !valid_utf8(name))
    return fail(Code::kFailedPrecondition, "'lora_name' must be at most ", kAdapterNameBytesMax, " bytes of text without commas");
  return {};
}

// Under mutex_. The files may have changed since they were last read: other weights get another number.
void Adapters::keep(Entry& entry, std::shared_ptr<const model::LoraAdapter> weights) {
  if (entry.digest != weights->digest()) {
    entry.digest = weights->digest();
    entry.id = ++last_id_;
  }
  kv::Adapter key{.id = entry.id, .name = entry.module.name, .digest = entry.digest};
  entry.adapter = std::make_shared<const Adapter>(std::move(key), std::move(weights));
  entry.used = ++uses_;
  if (kept_max_ == 0) return;
  const auto in_memory = [](const auto& item) { return item.second.adapter != nullptr; };
  for (auto kept = std::ranges::count_if(entries_, in_memory); kept > kept_max_; --kept) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it)
      if (it->second.adapter && (oldest == entries_.end() || it->second.used < oldest->second.used)) oldest = it;
    oldest->second.adapter.reset();
  }
}

Result<> Adapters::load(LoraModule module, bool in_place) {
  BATON_OK(check_name(module.name));
  const std::lock_guard reading(reading_);
  {
    const std::lock_guard lock(mutex_);
    if (!in_place && entries_.contains(module.name)) {
      return fail(Code::kAlreadyExists, "The lora adapter '", module.name,
                  "' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.");
    }
    if (!entries_.contains(module.name) && entries_.size() >= kAdaptersMax)
      return fail(Code::kResourceExhausted, kAdaptersMax, " LoRA adapters are loaded, which is the most: unload some");
  }
  auto weights = load_(module.path);
  if (!weights && weights.error().code == Code::kNotFound)
    return fail(Code::kNotFound, "Loading lora ", module.name, " failed: No adapter found for ", module.path);
  if (!weights) return std::unexpected(weights.error());
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[module.name];
  if (entry.loaded == 0) entry.loaded = ++uses_;
  entry.module = std::move(module);
  const int32_t rank = (*weights)->rank();
  keep(entry, *std::move(weights));
  log_info("LoRA adapter loaded", "name={} path={} rank={} id={}", entry.module.name, entry.module.path, rank, entry.id);
  return {};
}

bool Adapters::unload(const std::string& name) {
  const std::lock_guard reading(reading_);  // what is being loaded is there afterwards
  const std::lock_guard lock(mutex_);
  if (entries_.erase(name) == 0) return false;
  log_info("LoRA adapter removed", "name={}", name);
  return true;
}

bool Adapters::has(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(name);
}

Result<std::shared_ptr<const Adapter>> Adapters::find(const std::string& name) {
  const auto in_memory = [&](std::string* path) -> Result<std::shared_ptr<const Adapter>> {
    const std::lock_guard lock(mutex_);
    const auto it = entries_.find(name);
    if (it == entries_.end()) return std::unexpected(no_such_model(name));
    it->second.used = ++uses_;
    if (path) *path = it->second.module.path;
    return it->second.adapter;
  };
  auto found = in_memory(nullptr);
  if (!found || *found) return found;
  const std::lock_guard reading(reading_);
  std::string path;
  found = in_memory(&path);
  if (!found || *found) return found;
  auto weights = load_(path);
  if (!weights) return fail(Code::kInternal, "Loading lora ", name, " failed: ", weights.error().message);
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_.at(name);  // unload() waits for reading_
  keep(entry, *std::move(weights));
  return entry.adapter;
}

std::vector<LoraModule> Adapters::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<const Entry*> order;
  for (const auto& [name, entry] : entries_) order.push_back(&entry);
  std::ranges::sort(order, {}, &Entry::loaded);
  std::vector<LoraModule> out;
  for (const Entry* entry : order) out.push_back(entry->module);
  return out;
}

void Adapters::later(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    later_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void Adapters::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !later_.empty(); });
    if (later_.empty()) return;
    Work work = std::move(later_.front());
    later_.pop_front();
    lock.unlock();
    work(*this);
    lock.lock();
  }
}

}  // namespace baton::engine
