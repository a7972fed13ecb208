#pragma once
// ApiKeys: who may use the gateway. A file of lines
//   NAME  KEY | sha256:64-HEX-DIGITS  [tokens_per_minute=N]  [burst=N]  [objective=NAME]          # comment
// The name is the tenant: fairness id of its requests, and in the logs. Keys are compared by their SHA-256, so time tells
// nothing. A limit is a bucket of prompt tokens that fills at tokens_per_minute up to `burst` (default: a minute's worth). A
// request is let in while there is anything in the bucket and then charged whole, so a long prompt is never impossible, only paid
// off afterwards. A file that became bad keeps the old keys. Threads: any. Source: facts sheet "epp" 1.4 (fairness id,
// objective).
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/result.h"

namespace baton::gateway {

struct ApiKey {
  std::string name, objective;
  int64_t tokens_per_minute = 0;  // 0 = no limit
  int64_t burst = 0;

  // Milliseconds until the bucket has something again; 0 = come in.
  int64_t wait_ms(int64_t now_ms);
  void charge(int64_t tokens, int64_t now_ms);
  double level(int64_t now_ms);

 private:
  void fill(int64_t now_ms);
  std::mutex mutex_;
  double level_ = -1;  // -1 = not used yet: full
  int64_t filled_ms_ = 0;
};

class ApiKeys {
 public:
  // The whole file; all errors together, with their lines. No error text holds a key.
  Result<> load(std::string_view text);
  void add(std::string_view name, std::string_view key);
  bool empty() const;
  // authorization: the header, "" = none. nullptr: not known.
  std::shared_ptr<ApiKey> find(std::string_view authorization) const;

 private:
  using Table = std::unordered_map<std::string, std::shared_ptr<ApiKey>>;  // by SHA-256, hex
  mutable std::mutex mutex_;
  Table own_;  // by add()
  std::shared_ptr<const Table> table_ = std::make_shared<const Table>();
};

}  // namespace baton::gateway
