#pragma once
// Producer: the listening half of a node. Accepts consumers, answers their handshake and serves grants to them.
// Threads: the node's loop. Grants end through Context::emit; the destructor ends every one that is left.
#include <memory>
#include <unordered_map>

#include "transfer/context.h"
#include "transfer/grant_table.h"
#include "transfer/socket.h"

namespace baton::transfer {

class Session;

class Producer {
 public:
  explicit Producer(Context& context);
  ~Producer();
  Result<> listen();
  int port() const { return port_; }
  void adopt(Fd connection);  // serves a consumer on it

  void offer(const Token& token, Offer offer);
  void release(uint64_t request);
  void promise(const Token& token, Offer offer);
  void progress(uint64_t request, std::vector<int32_t> blocks, int32_t ready_tokens);
  void complete(uint64_t request, Completion completion);
  void refuse(const Token& token, Error why);
  void drain() { grants_.stop_renewals(); }

  // For sessions.
  GrantTable& grants() { return grants_; }
  void arm();  // sets the timer for the table's next deadline
  void reading(const Token& token, Session& session, uint64_t op);
  bool await(const Token& token, Session& session, uint64_t op);  // false: table full, or somebody waits already
  void drop_await(const Token& token);
  void read_ended(const Token& token, Session& session, uint64_t op);  // closes the grant
  void gone(Session& session);                                         // destroys it
  const std::string& shm_name() const { return shm_name_; }
  std::span<std::byte> probe_bytes() { return probe_; }

 private:
  struct Reader {
    Session* session;
    uint64_t op;
    bool operator==(const Reader&) const = default;
  };
  struct Caller {  // a connection on the unix socket that has not shown its key yet
    Fd fd;
    uint64_t watch = 0;
    Loop::TimerId timer;
  };
  void accept_sessions();
  void accept_callers();
  void pause_if_exhausted(uint64_t watch);
  void serve_caller(uint64_t id);
  void drop_caller(uint64_t id);
  std::vector<Reader> readers(const std::vector<Token>& tokens) const;
  void stop_readers(const std::vector<Token>& tokens);
  void advance(const std::vector<Token>& tokens);
  void on_deadline();

  Context& context_;
  GrantTable grants_;
  Fd tcp_, unix_;
  uint64_t tcp_watch_ = 0, unix_watch_ = 0;
  int port_ = 0;
  std::string shm_name_;
  std::vector<std::byte> probe_;
  Loop::TimerId timer_{}, accept_timer_{};
  std::unordered_multimap<Token, Reader, TokenHash> readers_;  // several of one grant: ranks of one engine
  std::unordered_map<Token, Reader, TokenHash> awaits_;        // who asked for a grant that does not exist yet
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  std::unordered_map<uint64_t, Caller> callers_;
  uint64_t next_caller_ = 1;
};

}  // namespace baton::transfer
