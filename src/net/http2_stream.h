#pragma once
// Http2Stream: one request of an Http2Connection and the ResponseWriter that answers it. Kept alive by the session until
// on_closed and by the handler's coroutine until that ends, whichever is later. Guarantees: a body shorter or longer than the
// Content-Length the handler gave resets the stream, so that no cut answer looks complete.
#include "net/connection.h"

namespace baton::net {

class Http2Stream final : public H2Stream, public ResponseWriter, public std::enable_shared_from_this<Http2Stream> {
 public:
  explicit Http2Stream(std::shared_ptr<Http2Connection> connection) : connection_(std::move(connection)) {}
  void live() { self_ = shared_from_this(); }

  Task<Result<>> send(Response response) override;
  Task<Result<>> begin(int status, Headers headers) override;
  Task<Result<>> write(std::string_view bytes) override;
  Task<Result<>> finish() override;
  bool started() const override { return responded(); }
  Cancel& cancel() override { return cancel_; }
  bool stalled();  // no body byte since it was asked last

 private:
  friend class Http2Connection;
  void on_field(std::string_view name, std::string_view value) override;
  void on_head() override;
  void on_data(std::string_view bytes) override;
  void on_end() override;
  void on_room() override;
  void on_closed() override;
  void refuse(int status, std::string_view message);
  void stop_waiting();
  void head(int status, const Headers& headers, std::optional<uint64_t> length, bool end);
  Task<> run();
  Task<Result<>> wait_for_room();

  std::shared_ptr<Http2Connection> connection_;
  std::shared_ptr<Http2Stream> self_;
  Request request_;
  Cancel cancel_;
  Event* room_ = nullptr;  // write() waits on it
  std::optional<uint64_t> length_left_;
  size_t heard_ = 0;  // body bytes at the last stalled()
  bool refused_ = false, waiting_ = false, too_slow_ = false;
};

}  // namespace baton::net
