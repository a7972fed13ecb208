#pragma once
// Reflector: keeps a Store equal to one kind of object in one namespace: a paginated list, then a watch from its version on, for
// ever. Guarantees: the Store only loses an object because the API server said so (a DELETED event, or a whole new list without
// it), never because of an error; memory is bounded by limits.h; errors are retried with backoff and logged once each.
//   410, a broken event, an unknown version   -> a new list
//   cut, quiet or ended watch, refused connect -> a new watch from the last version seen
//   404 before the first list                 -> the kind is not installed; looked for again every probe_missing
//   403                                       -> one line that says who may not do what, and the command that would allow it
// Thread: one I/O thread. Source: Kubernetes API concepts (watch, bookmarks, chunked lists); client-go's reflector as documented.
#include <functional>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/prng.h"
#include "discovery/kube_client.h"
#include "discovery/watch_decoder.h"

namespace baton::discovery {

struct Resource {
  std::string group{};    // "" = the core group
  std::string version{};  // "v1"
  std::string plural{};   // "pods"
  std::string ns{};
  std::string name{};            // one object alone, "" = all
  std::string label_selector{};  // as the API takes it, "" = all
  bool optional = false;         // others can do without it: "denied" and "missing" are no errors
  bool cluster = false;          // of no namespace
  std::string path() const;      // "/apis/<group>/<version>/namespaces/<ns>/<plural>"
};

// "kubectl ..." that lets `account` do what the reflector does; for the log.
std::string rbac_command(const Resource& resource, std::string_view verbs, const std::string& account);

class Store {
 public:
  virtual ~Store() = default;
  virtual void list_began() = 0;
  virtual void put(const Json& object) = 0;
  virtual void erase(const Json& object) = 0;
  virtual void list_ended() = 0;  // what was not put since list_began() is gone
};

// Delays between attempts: doubled from min to max, the upper half random, so that replicas do not come all at once.
class Backoff {
 public:
  Backoff(net::Millis min, net::Millis max, uint64_t seed) : min_(min), max_(max), prng_(seed) {}
  net::Millis next();
  void reset() { failures_ = 0; }

 private:
  net::Millis min_, max_;
  Prng prng_;
  int failures_ = 0;
};

class Reflector {
 public:
  enum class State { kStarting, kSynced, kMissing, kDenied };
  struct Counts {
    uint64_t lists = 0, watches = 0, events = 0, errors = 0, denied = 0;
  };

  // changed: after every batch of store calls and every change of state.
  Reflector(KubeClient& client, Resource resource, Store& store, uint64_t seed, std::function<void()> changed);
  net::Task<> run();  // until cancel() or its thread stops
  void cancel();

  const Resource& resource() const { return resource_; }
  State state() const { return state_; }
  bool tried() const { return tried_; }           // the first list has ended one way or the other
  int64_t heard_ms() const { return heard_ms_; }  // the clock when the API server last said something, -1 = never
  const Counts& counts() const { return counts_; }
  const std::string& last_error() const { return last_error_; }  // "" = all is well

 private:
  net::Task<Result<>> list();
  net::Task<Result<>> watch();
  net::Task<Result<>> follow(net::ResponseStream& stream);
  Result<> take_page(std::string_view body, std::string& more);
  Result<> apply(const std::vector<WatchEvent>& events);
  net::Task<> pause(const Error& error);
  std::string target(std::string_view query) const;
  void complain(const Error& error);
  void worked();
  bool given_up() const { return cancel_.cancelled(); }

  KubeClient& client_;
  Resource resource_;
  Store& store_;
  std::function<void()> changed_;
  Backoff backoff_;
  Prng prng_;
  net::Cancel cancel_;
  State state_ = State::kStarting;
  bool tried_ = false, relist_ = true;
  int watches_failed_ = 0;  // in a row
  std::string version_;     // of the last thing seen
  const char* verb_ = "list";
  net::Millis wait_at_least_{0};
  int64_t heard_ms_ = -1, listed_ms_ = -1;
  Counts counts_;
  std::string last_error_;
};

}  // namespace baton::discovery
