#pragma once
// Adapters: the LoRA adapters an engine serves, by name. A request takes one with find() and keeps it until it ends, so an adapter that
// is unloaded or replaced meanwhile goes on for those that began with it. kept_max bounds how many stay in memory: the one used least
// recently leaves, and is read again from its path when somebody names it. Guarantees: loading never blocks find() of an adapter that
// is in memory. Any thread. Source: facts sheet "engine" 1.7; vLLM's LoRAModelManager.
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "engine/config.h"
#include "kv/block_pool.h"
#include "model/model.h"

namespace baton::engine {

struct Adapter {
  kv::Adapter key;
  std::shared_ptr<const model::LoraAdapter> weights;
};

Error no_such_model(std::string_view name);

class Adapters {
 public:
  // Reads the adapter in a directory, as Model::load_lora does. Any thread, one at a time.
  using Load = std::function<Result<std::shared_ptr<const model::LoraAdapter>>(const std::string& path)>;
  Adapters(Load load, std::vector<std::string> base_names, int32_t kept_max);  // kept_max 0: all
  ~Adapters();  // runs what later() took first

  // Reads it now. kAlreadyExists unless in_place; kNotFound: no adapter lies there; kFailedPrecondition: the name; others: what is wrong
  // with the files.
  Result<> load(LoraModule module, bool in_place);
  bool unload(const std::string& name);  // false: there is none. Waits for what is being read
  // Runs work, one after the other, on a thread of its own.
  using Work = std::move_only_function<void(Adapters&)>;
  void later(Work work);

  bool has(std::string_view name) const;
  // kNotFound: there is none. Reads its files if it has left memory.
  Result<std::shared_ptr<const Adapter>> find(const std::string& name);
  std::vector<LoraModule> list() const;  // in the order they were loaded

 private:
  struct Entry {
    LoraModule module;
    std::shared_ptr<const Adapter> adapter;  // nullptr: out of memory
    int32_t id = 0;
    std::string digest;  // the id's
    uint64_t loaded = 0, used = 0;
  };
  Result<> check_name(const std::string& name) const;
  void keep(Entry& entry, std::shared_ptr<const model::LoraAdapter> weights);
  void run();

  const Load load_;
  const std::vector<std::string> base_names_;
  const int32_t kept_max_;
  std::mutex reading_;  // held while files are read; taken before mutex_
  mutable std::mutex mutex_;
  std::map<std::string, Entry, std::less<>> entries_;
  int32_t last_id_ = 0;
  uint64_t uses_ = 0;

  std::condition_variable changed_;  // of later_ and stopping_, under mutex_
  std::deque<Work> later_;
  bool stopping_ = false;
  std::thread thread_;  // starts with the first later()
};

}  // namespace baton::engine
