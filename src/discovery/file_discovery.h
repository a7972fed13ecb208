#pragma once
// FileDiscovery: the pool's members from a file, followed as it changes.
// start() reads the file once and fails if it is bad: a person typed a wrong path. After that a bad or missing file is logged and
// the last good one stays in force: a half-written file must not empty the pool. Changes are seen through inotify on the
// directory (editors and ConfigMaps replace the file by a rename) and, for file systems without it, by looking every `poll`.
// Owner: any; on_change runs on the watcher's thread; current() may be called from any thread.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "discovery/cluster.h"
#include "discovery/members.h"

namespace baton::discovery {

struct Membership {
  uint64_t generation = 0;  // 1 for the first good file, then one more for every change of content
  std::vector<Member> members;
};

class FileDiscovery {
 public:
  using OnChange = std::function<void(std::shared_ptr<const Membership>)>;
  FileDiscovery(std::string path, std::chrono::milliseconds poll = std::chrono::milliseconds(1000));
  ~FileDiscovery();
  // on_change: called for the first membership before start() returns, then for every change.
  Result<> start(OnChange on_change);
  void stop();
  std::shared_ptr<const Membership> current() const;
  uint64_t rejected() const { return rejected_.load(); }  // files seen that were not good

 private:
  void watch();
  Result<> load();
  std::string path_;
  std::chrono::milliseconds poll_;
  OnChange on_change_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Membership> current_;
  std::string last_text_;  // watcher's thread, after start()
  std::atomic<uint64_t> rejected_{0};
  int stop_fd_ = -1, inotify_fd_ = -1;
  std::thread thread_;
};

// The same as ClusterStates: `pool` is what the picker calls its pool. Always synced: start() fails where the file cannot be
// read.
Result<> start_cluster(FileDiscovery& files, std::string pool, std::string pool_namespace, OnClusterState on_change);

}  // namespace baton::discovery
