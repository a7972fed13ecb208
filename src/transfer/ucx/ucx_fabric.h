#pragma once
// UcxFabric: the Fabric, with UCX's types in sight. Included by fabric.cc (opening, and the loop's side) and worker.cc (UCX's
// thread) alone.
#if BATON_HAS_UCX
#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <thread>

#include "transfer/ucx/fabric.h"
#include "transfer/ucx/library.h"

namespace baton::transfer::ucx {

constexpr unsigned kMessageId = 0xB7;
constexpr size_t kHeaderBytes = sizeof(Nonce) + kChunkHeadBytes;

inline std::unexpected<Error> ucx_error(std::string_view what, ucs_status_t status) {
  return fail(Code::kUnavailable, "ucx ", what, ": ", ucs_status_string(status));
}

class UcxFabric;

// One message or read under way; deleted by the callback that ends it.
struct Operation {
  UcxFabric* fabric = nullptr;
  uint64_t peer = 0;
  std::string header;
  std::vector<ucp_dt_iov_t> parts;
  Nonce key{};
  ChunkHead head;
  std::shared_ptr<Staging::Buffer> buffer;  // receive, read
  size_t left = 1;                          // pieces
  bool failed = false;
};

class UcxFabric final : public Fabric {
 public:
  explicit UcxFabric(Loop& loop) : loop_(loop) {}
  ~UcxFabric() override;
  Result<> open(std::span<std::byte> pool, const std::string& interface);

  const Local& local() const override { return local_; }
  void expect(const Nonce& key, size_t bytes_max, Arrived arrived) override;
  void forget(const Nonce& key) override;
  uint64_t dial(std::string address, std::string pool_key, Lost lost) override;
  void hang_up(uint64_t endpoint) override;
  void send(uint64_t endpoint, const Nonce& key, const ChunkHead& head, std::vector<iovec> parts) override;
  void read(uint64_t endpoint, const Nonce& key, const ChunkHead& head, std::vector<RemotePiece> pieces) override;

 private:
  struct Peer {
    ucp_ep_h ep = nullptr;
    ucp_rkey_h pool_key = nullptr;
    bool lost = false, proven = false;  // proven: something went through
    bool gone = false;                  // hung up, and to be closed once that is safe
    std::string address, packed_key;    // until connect()
  };
  struct Waiting {  // a large message that asks to be let in
    Nonce key{};
    ChunkHead head;
    void* descriptor = nullptr;
    size_t length = 0;
  };
  using Command = std::function<void()>;
  Result<> open_context(std::span<std::byte> pool, const std::string& interface);
  Result<> open_worker();
  // From here on: UCX's thread.
  void command(Command fn);  // any thread
  void wake();               // any thread
  void run();
  bool run_commands();
  void wait();
  Peer* connected(uint64_t id);  // connects with the first use; null: no such peer any more
  void close(Peer& peer);
  void close_gone();
  void operation_ended(const Operation& op, ucs_status_t status);
  void do_hang_up(uint64_t id);
  void do_send(uint64_t id, std::unique_ptr<Operation> op, const std::vector<iovec>& parts);
  void do_read(uint64_t id, std::unique_ptr<Operation> op, const std::vector<RemotePiece>& pieces);
  void on_lost(ucp_ep_h ep, ucs_status_t why);
  void lose(uint64_t id, Error why);
  ucs_status_t on_message(const void* header, size_t header_length, void* data, size_t length, const ucp_am_recv_param_t* param);
  void receive_waiting();
  void piece_done(Operation* op, ucs_status_t status);
  void deliver(const Nonce& key, const ChunkHead& head, Staging::Ref bytes);
  size_t bytes_max_of(const Nonce& key);
  bool under_way(ucs_status_ptr_t request);  // false: over already, well or not
  void end_everything();

  Loop& loop_;
  Local local_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  ucp_mem_h pool_ = nullptr;
  int worker_fd_ = -1;
  Fd event_;
  std::thread thread_;
  std::atomic<bool> stop_{false};
  std::shared_ptr<Staging> staging_;
  std::shared_ptr<UcxFabric*> self_ = std::make_shared<UcxFabric*>(this);  // null once we go: what was posted does nothing

  // The loop's thread.
  uint64_t next_endpoint_ = 1;
  std::map<Nonce, Arrived> arrived_;
  std::map<uint64_t, Lost> lost_;

  std::mutex mutex_;
  std::vector<Command> commands_;     // guarded by mutex_
  std::map<Nonce, size_t> expected_;  // guarded by mutex_

  // UCX's thread.
  std::map<uint64_t, Peer> peers_;
  std::set<void*> closing_;
  std::deque<Waiting> waiting_;
  size_t operations_ = 0;
  bool gone_changed_ = false;
};

}  // namespace baton::transfer::ucx
#endif
