#pragma once
// FakeApi: an API server for tests, in this process: objects with versions, paginated lists, watches with history, bookmarks and
// 410, label and name selectors, create and update with conflicts. Faults are queued by "<verb> <plural>" and used up one by one.
// Thread: any. Nothing in it waits for time.
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "discovery/kube_access.h"
#include "net/http.h"
#include "net/mailbox.h"

namespace baton::discovery {

class FakeApi {
 public:
  struct Fault {
    int status = 500;  // 0 = `raw` as a 200
    std::string body = R"({"kind":"Status","status":"Failure","message":"fault of the test"})";
    std::string raw{};  // a watch or list answers with these bytes and then
    bool cut = false;   // ... breaks the connection instead of ending it cleanly
    bool hang = false;  // never answers
    net::Headers headers{};
  };

  explicit FakeApi(std::shared_ptr<net::TlsServer> tls = nullptr);
  ~FakeApi() { stop(); }
  KubeAccess access() const;
  void stop();
  void start();  // again, on the same port

  // kind: "/api/v1/namespaces/ns/pods". Unknown kinds answer 404.
  void install(const std::string& kind);
  void put(const std::string& kind, const std::string& object);  // needs metadata.name
  void erase(const std::string& kind, const std::string& name);
  std::string text(const std::string& kind, const std::string& name) const;  // "" = none
  void bookmark();                                                           // to every watch
  void cut_watches();                                                        // breaks them off
  void forget_history();                                                     // older versions are 410 from now on
  void fault(const std::string& what, Fault fault, int times = 1);           // "list pods", "watch pods", "put leases"
  void need_token(std::string token);                                        // 401 without it
  int count(const std::string& what) const;                                  // requests so far
  bool wait_count(const std::string& what, int at_least) const;
  std::vector<std::string> targets() const;  // of every request, in order

 private:
  struct Event {
    uint64_t version;
    std::string kind, type, text;
  };
  struct Watcher {
    std::string kind, labels, name;
    std::shared_ptr<net::Mailbox<std::string>> lines;
  };
  net::Task<> answer(net::Request& request, net::ResponseWriter& writer);
  net::Task<> watch(net::Request& request, net::ResponseWriter& writer, const std::string& kind);
  net::Task<> misbehave(Fault fault, net::ResponseWriter& writer);
  net::Response list(const net::Request& request, const std::string& kind);
  net::Response one(const net::Request& request, const std::string& kind, const std::string& name);
  net::Response write(const net::Request& request, const std::string& kind, const std::string& name);
  void store(const std::string& kind, const std::string& name, const std::string& object);  // mutex held
  std::optional<Fault> take_fault(const std::string& what);

  mutable std::mutex mutex_;
  mutable std::condition_variable counted_;
  std::map<std::string, std::map<std::string, std::string>> kinds_;
  std::map<std::string, uint64_t> created_;
  std::vector<Event> history_;
  std::vector<Watcher> watchers_;
  std::map<std::string, std::vector<Fault>> faults_;
  std::map<std::string, int> counts_;
  std::vector<std::string> targets_;
  std::string token_;
  uint64_t version_ = 100, oldest_ = 100;
  int port_ = 0;
  std::shared_ptr<net::TlsServer> tls_;
  std::unique_ptr<net::Server> server_;
};

// Objects for tests.
std::string pod_json(const std::string& name, const std::string& ip, const std::string& labels = R"("app":"vllm")",
                     bool ready = true, const std::string& more_metadata = "");
std::string pool_json(const std::string& name, const std::string& selector = R"("app":"vllm")",
                      const std::string& ports = "8000");

}  // namespace baton::discovery
