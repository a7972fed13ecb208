#pragma once
// GrpcTestClient: a blocking gRPC client for tests and benches, on one connection, on the caller's thread; not for production. A
// call's functions drive the connection, so calls interleave as the test writes them. Every wait ends after 10 s with an error.
//
//   GrpcTestClient client(server.port());
//   auto call = client.open("/package.Service/Method");
//   call->send(request.SerializeAsString());
//   std::optional<std::string> reply = call->receive();      // nullopt: the call has ended, see code() and message()
//   call->half_close(); EXPECT_EQ(call->wait_end(), Code::kOk);
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>

#include <charconv>
#include <deque>
#include <optional>

#include "net/grpc_message.h"
#include "net/test_socket.h"
#include "net/tls_context.h"

namespace baton::net {

class GrpcTestClient {
 public:
  class Call {
   public:
    Call(GrpcTestClient& client, std::string_view path, std::vector<std::pair<std::string, std::string>> fields)
        : client_(client), path_(path) {
      std::vector<std::pair<std::string, std::string>> all = {
          {":method", "POST"}, {":scheme", "http"}, {":path", path_}, {":authority", "test"}, {"te", "trailers"}};
      bool typed = false;
      for (auto& f : fields) typed |= f.first == "content-type";
      if (!typed) all.emplace_back("content-type", "application/grpc");
      for (auto& f : fields) {
        auto same = std::find_if(all.begin(), all.end(), [&](auto& a) { return a.first == f.first; });
        if (same != all.end()) {
          same->second = f.second;
        } else {
          all.push_back(f);
        }
      }
      std::vector<nghttp2_nv> nv;
      auto bytes = [](std::string& s) { return reinterpret_cast<uint8_t*>(s.data()); };
      for (auto& [n, v] : all) nv.push_back({bytes(n), bytes(v), n.size(), v.size(), NGHTTP2_NV_FLAG_NONE});
      nghttp2_data_provider provider{.source = {.ptr = this}, .read_callback = read};
      id_ = nghttp2_submit_request(client.session_, nullptr, nv.data(), nv.size(), &provider, this);
      ended_ = id_ < 0;
    }
    ~Call() {
      if (!ended_) cancel();
      if (id_ > 0) nghttp2_session_set_stream_user_data(client_.session_, id_, nullptr);
    }
    Call(const Call&) = delete;

    void send(std::string_view message, bool compressed = false) {
      send_raw(cat(GrpcPrefix(message.size(), compressed).view(), message));
    }
    void send_raw(std::string_view bytes) {  // DATA as it is
      out_ += bytes;
      resume();
    }
    void half_close() {
      half_closed_ = true;
      resume();
    }
    void cancel() {
      if (ended_) return;
      nghttp2_submit_rst_stream(client_.session_, NGHTTP2_FLAG_NONE, id_, NGHTTP2_CANCEL);
      client_.push();
      ended_ = true;
    }
    // The next message; nullopt once the call has ended (or after 10 s).
    std::optional<std::string> receive() {
      client_.pump_until([this] { return !messages_.empty() || ended_; });
      if (messages_.empty()) return std::nullopt;
      std::string m = std::move(messages_.front());
      messages_.pop_front();
      return m;
    }
    size_t received() const { return messages_.size(); }
    // Waits for the end. kUnknown: it ended without grpc-status; kDeadlineExceeded: it did not end within 10 s.
    Code wait_end() {
      if (!client_.pump_until([this] { return ended_; })) return Code::kDeadlineExceeded;
      return code();
    }
    bool ended() const { return ended_; }
    Code code() const {
      std::string text = field("grpc-status");
      int value = 0;
      auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
      return text.empty() || ec != std::errc() ? Code::kUnknown : static_cast<Code>(value);
    }
    std::string message() const { return grpc_percent_decoded(field("grpc-message")); }
    std::string field(std::string_view name) const {  // of the headers or trailers received
      for (const auto& [n, v] : fields_) {
        if (n == name) return v;
      }
      return {};
    }
    const std::string& body() const { return body_; }  // of an answer that is not gRPC's
    uint32_t reset_code() const { return reset_code_; }  // of RST_STREAM, 0 = none
    size_t unsent() const { return out_.size() - out_at_; }
    int32_t id() const { return id_; }

   private:
    friend class GrpcTestClient;
    static ssize_t read(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags, nghttp2_data_source* source,
                        void*) {
      auto& call = *static_cast<Call*>(source->ptr);
      size_t n = std::min(size, call.unsent());
      if (n == 0 && !call.half_closed_) {
        call.deferred_ = true;
        return NGHTTP2_ERR_DEFERRED;
      }
      std::memcpy(buffer, call.out_.data() + call.out_at_, n);
      call.out_at_ += n;
      if (call.unsent() == 0) {
        call.out_.clear();
        call.out_at_ = 0;
        if (call.half_closed_) *flags |= NGHTTP2_DATA_FLAG_EOF;
      }
      return static_cast<ssize_t>(n);
    }
    void resume() {
      if (ended_) return;
      if (std::exchange(deferred_, false)) nghttp2_session_resume_data(client_.session_, id_);
      if (!client_.corked) client_.push();
    }
    void on_data(std::string_view bytes) {
      if (!field("content-type").starts_with("application/grpc")) {
        body_ += bytes;
        return;
      }
      auto fed = deframer_.feed(bytes, 1u << 30, [this](std::string_view m, bool) {
        messages_.emplace_back(m);
        return true;
      });
      BATON_CHECK(fed.has_value());
    }

    GrpcTestClient& client_;
    std::string path_, out_, body_;
    size_t out_at_ = 0;
    int32_t id_ = 0;
    bool half_closed_ = false, deferred_ = false, ended_ = false;
    uint32_t reset_code_ = 0;
    GrpcDeframer deframer_;
    std::deque<std::string> messages_;
    std::vector<std::pair<std::string, std::string>> fields_;
  };

  explicit GrpcTestClient(int port, TlsClient* tls = nullptr, const std::string& server_name = "localhost",
                          uint32_t window_bytes = 1u << 20, bool window_stays_shut = false)
      : fd_(connect(port)) {
    if (tls) tls_ = make_stream(*tls, server_name);
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session* s, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value,
                      size_t value_size, uint8_t, void*) {
          auto text = [](const uint8_t* p, size_t n) { return std::string(reinterpret_cast<const char*>(p), n); };
          if (Call* c = call(s, frame->hd.stream_id)) c->fields_.emplace_back(text(name, name_size), text(value, value_size));
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session* s, uint8_t, int32_t id, const uint8_t* data, size_t size, void*) {
          if (Call* c = call(s, id)) c->on_data({reinterpret_cast<const char*>(data), size});
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks,
                                                           [](nghttp2_session* s, int32_t id, uint32_t error, void*) {
                                                             if (Call* c = call(s, id)) c->ended_ = true, c->reset_code_ = error;
                                                             return 0;
                                                           });
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
      auto& self = *static_cast<GrpcTestClient*>(user);
      if (frame->hd.type == NGHTTP2_GOAWAY) self.goaways_.push_back(frame->goaway.error_code);
      if (frame->hd.type == NGHTTP2_PING) ++self.pings_;
      return 0;
    });
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    nghttp2_option_set_peer_max_concurrent_streams(option, 1u << 20);
    nghttp2_option_set_no_auto_window_update(option, window_stays_shut);
    nghttp2_session_client_new2(&session_, callbacks, this, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window_bytes}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 1);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, static_cast<int>(16 * window_bytes));
    if (!tls_) push();
    if (!tls_) return;
    pump_until([this] {
      ErrorCode ec = tls_->handshake(fd_);
      if (ec && ec != boost::system::errc::operation_would_block) lost_ = true;
      return tls_->ready();
    });
  }
  ~GrpcTestClient() {
    nghttp2_session_del(session_);
    ::close(fd_);
  }
  GrpcTestClient(const GrpcTestClient&) = delete;

  std::unique_ptr<Call> open(std::string_view path, std::vector<std::pair<std::string, std::string>> fields = {}) {
    auto made = std::make_unique<Call>(*this, path, std::move(fields));
    if (!corked) push();
    return made;
  }
  // Sends, receives and dispatches until `done`. False: 10 s passed, or the connection was lost.
  template <class F>
  bool pump_until(F done) {
    push();
    while (!done()) {
      if (lost_) return false;
      pollfd p{fd_, static_cast<short>(POLLIN | (out_.empty() && !(tls_ && tls_->unsent()) ? 0 : POLLOUT)), 0};
      if (!(tls_ && tls_->unread()) && ::poll(&p, 1, 10'000) <= 0) return false;
      pull();
      push();
    }
    return true;
  }
  bool wait_lost() {
    pump_until([this] { return lost_; });
    return lost_;
  }
  bool lost() const { return lost_; }
  const std::vector<uint32_t>& goaways() const { return goaways_; }  // error codes, in order
  int pings() const { return pings_; }
  nghttp2_session* session() { return session_; }
  int fd() const { return fd_; }
  void push() {  // sends what can be sent
    do {
      const uint8_t* data = nullptr;
      while (out_.size() < (1u << 20)) {
        ssize_t n = nghttp2_session_mem_send(session_, &data);
        if (n <= 0) break;
        out_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
      }
    } while (!out_.empty() && send_out());
  }
  bool corked = false;  // true: send() and open() only queue; push() or any wait sends

 private:
  static Call* call(nghttp2_session* s, int32_t id) { return static_cast<Call*>(nghttp2_session_get_stream_user_data(s, id)); }
  static int connect(int port) {
    int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    BATON_CHECK(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
  }
  void pull() {
    if (!input_) input_ = std::make_unique<char[]>(kInput);
    size_t n = 0;
    if (tls_ && !tls_->ready()) return;
    if (tls_) {
      ErrorCode ec;
      n = tls_->read(fd_, {input_.get(), kInput}, ec);
      lost_ |= ec && ec != boost::system::errc::operation_would_block;
    } else {
      ssize_t got = ::recv(fd_, input_.get(), kInput, MSG_DONTWAIT);
      lost_ |= got == 0 || (got < 0 && errno != EAGAIN);
      n = got < 0 ? 0 : static_cast<size_t>(got);
    }
    if (n > 0 && nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(input_.get()), n) < 0) lost_ = true;
  }

  bool send_out() {  // true: all of it
    if (tls_ && !tls_->ready()) return false;
    while (!out_.empty() || (tls_ && tls_->unsent())) {
      ErrorCode ec;
      size_t n = 0;
      iovec piece{out_.data(), out_.size()};
      if (tls_) {
        n = tls_->write(fd_, {&piece, out_.empty() ? 0u : 1u}, ec);
        if (out_.empty() && tls_->unsent()) return false;
      } else {
        ssize_t sent = ::send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) lost_ = true;
        n = sent < 0 ? 0 : static_cast<size_t>(sent);
      }
      out_.erase(0, n);
      if (n == 0 && !out_.empty()) return false;
    }
    return true;
  }

  static constexpr size_t kInput = 256 << 10;
  int fd_;
  std::unique_ptr<TlsStream> tls_;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  std::unique_ptr<char[]> input_;
  std::vector<uint32_t> goaways_;
  int pings_ = 0;
  bool lost_ = false;
};

}  // namespace baton::net
