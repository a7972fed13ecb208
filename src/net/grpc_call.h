#pragma once
// GrpcStream: one call of a GrpcServer: an HTTP/2 stream on one side, GrpcCall for the handler on the other. Guarantees: what the
// contract in net/grpc.h says; a call that is refused never reaches the factory. Inbox: functions posted from any thread to the
// calls of one thread, one wake-up for many.
#include <atomic>
#include <mutex>

#include "net/grpc.h"
#include "net/grpc_message.h"
#include "net/h2_connection.h"

namespace baton::net {

class GrpcStream;

struct GrpcAnchor {  // outlives its call; `alive` belongs to the call's thread
  bool alive = true;
};

class GrpcInbox : public std::enable_shared_from_this<GrpcInbox> {
 public:
  explicit GrpcInbox(Scope& scope) : scope_(&scope) {}
  void post(std::shared_ptr<GrpcAnchor> anchor, std::move_only_function<void()> f);  // any thread
  void close();                                                                      // its thread is about to end

 private:
  struct Item {
    std::shared_ptr<GrpcAnchor> anchor;
    std::move_only_function<void()> f;
  };
  void run();
  std::mutex mutex_;
  std::vector<Item> items_;
  Scope* scope_;
};

// What the connections of one I/O thread share.
struct GrpcThread {
  explicit GrpcThread(const GrpcServerOptions& o) : options(o) {}
  ~GrpcThread() {  // a flush that no longer came keeps connections alive; their timers must end before the scope does
    if (!loop) return;
    loop->dirty.clear();
    loop->connections.clear();
  }
  const GrpcServerOptions& options;
  GrpcHandlerFactory factory;
  std::atomic<int> connection_count{0}, calls{0};
  std::function<void()> on_connection_gone;
  bool draining = false;
  std::shared_ptr<GrpcInbox> inbox;
  std::unique_ptr<H2Loop> loop;
  Scope scope;  // last: its pending callbacks die before what they use
};

class GrpcConnection final : public H2Connection {
 public:
  GrpcConnection(GrpcThread& thread, Channel channel);
  H2Stream* make_stream() override;
  void on_gone() override;
  GrpcThread& thread() { return thread_; }
  size_t& partial_bytes() { return partial_bytes_; }

 private:
  GrpcThread& thread_;
  size_t partial_bytes_ = 0;  // of messages that are not complete
  bool used_ = false;
};

class GrpcStream final : public H2Stream, public GrpcCall {
 public:
  explicit GrpcStream(GrpcConnection& connection) : connection_(connection) {}
  ~GrpcStream() override;

  std::string_view path() const override { return path_; }
  std::string_view peer() const override { return connection_.peer(); }
  void write_pieces(std::span<const std::string_view> pieces) override;
  void finish(Code code, std::string_view message) override;
  size_t unsent_bytes() const override { return unsent(); }
  void want_room(size_t unsent_bytes_max) override { H2Stream::want_room(unsent_bytes_max); }
  std::function<void(std::move_only_function<void()>)> poster() override;

 private:
  void on_field(std::string_view name, std::string_view value) override;
  void on_head() override;
  void on_data(std::string_view bytes) override;
  void on_end() override;
  void on_room() override;
  void on_closed() override;
  bool on_message(std::string_view message, bool compressed);
  void refuse(std::string_view status);

  GrpcConnection& connection_;
  std::string path_;
  GrpcDeframer deframer_;
  std::unique_ptr<GrpcHandler> handler_;
  std::shared_ptr<GrpcAnchor> anchor_;
  enum class Encoding : uint8_t { kIdentity, kGzip, kUnknown } encoding_ = Encoding::kIdentity;
  bool is_post_ = false, is_grpc_ = false, done_ = false;
};

}  // namespace baton::net
