#pragma once
// Consumer: the reading half of a node: its peers, which fetch goes to which of them, and what happens when there is none.
// Threads: the node's loop; status() from any.
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "transfer/link.h"

namespace baton::transfer {

class Consumer {
 public:
  explicit Consumer(Context& context) : context_(context), resolver_(context.loop) {}
  ~Consumer();
  void set_peers(const std::vector<std::string>& peers);
  void fetch(Fetch fetch);
  void cancel(uint64_t request);
  void hold(const Grant& grant);
  void decline(const Grant& grant);
  std::vector<PeerStatus> status() const;

 private:
  struct Peer {
    std::unique_ptr<Link> link;
    bool wanted = false;  // by set_peers; else only a grant named it
  };
  // The parts of one fetch and who gives them.
  struct Source {
    Link* link = nullptr;
    Grant grant;
    Token token{};
  };
  Result<std::vector<Source>> sources_of(const Fetch& fetch);
  void fetch_push(Fetch fetch);
  void fetch_from(Fetch fetch, const std::vector<Source>& sources);
  Result<> check(const Fetch& fetch) const;
  Link* find(const Grant& grant);
  Link* find_or_add(const Grant& grant);
  Link* add(const HostPort& where, bool wanted);
  void unhold(const Token& token);
  void publish();
  void drop_unwanted();  // peers that only a grant named and that do not answer

  Context& context_;
  Resolver resolver_;
  std::map<std::string, Peer> peers_;  // by address text
  mutable std::mutex mutex_;
  std::vector<PeerStatus> published_;  // guarded by mutex_
  bool publish_due_ = false;
};

}  // namespace baton::transfer
