#include "net/client_connection.h"
#include "net/codec.h"
#include "net/encode.h"
#include "net/limits.h"

namespace baton::net {
namespace {

bool has_control_or_space(std::string_view s) {
  for (char c : s) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f) return true;
  }
  return s.empty();
}

std::string request_head(const Call& call) {
  std::string out;
  out.reserve(512);
  out += call.method;
  out += ' ';
  out += call.target;
  out += " HTTP/1.1\r\n";
  if (!call.headers.get("host")) {
    bool v6 = call.host.find(':') != std::string::npos;
    append_field(out, "host", cat(v6 ? "[" : "", call.host, v6 ? "]" : "", ':', call.port));
  }
  append_fields(out, call.headers);
  if (!call.body.empty() || call.method == "POST" || call.method == "PUT" || call.method == "PATCH") {
    append_field(out, "content-length", std::to_string(call.body.size()));
  }
  out += "\r\n";
  return out;
}

// A response whose connection it owns until the body has ended.
class Stream final : public ResponseStream {
 public:
  Stream(std::shared_ptr<ClientConnection> connection, std::weak_ptr<Pool> pool, const Call& call)
      : connection_(std::move(connection)),
        pool_(std::move(pool)),
        guard_(connection_, call.cancel),
        decoder_(call.method == "HEAD", kResponseHeaderBytesMax),
        first_byte_timeout_(call.first_byte_timeout),
        idle_timeout_(call.idle_timeout) {}

  int status() const override { return status_; }
  const Headers& headers() const override { return headers_; }
  std::optional<uint64_t> content_length() const { return decoder_.content_length(); }
  bool heard() const { return decoder_.started(); }

  Task<Result<std::string>> read() override {
    std::string bytes = std::exchange(body_, {});
    if (bytes.empty()) BATON_CO_OK(co_await read_into(bytes));
    co_return bytes;
  }

  // Appends what comes next; leaves `body` as it is at the end.
  Task<Result<>> read_into(std::string& body) {
    size_t before = body.size();
    if (connection_) connection_->deadline(idle_timeout_, "upstream sent nothing for too long");
    while (connection_ && body.size() == before) {
      BATON_CO_OK(parse(body));
      if (decoder_.done()) {
        give_back();
        break;
      }
      if (body.size() == before) BATON_CO_OK(co_await receive());
    }
    if (connection_) connection_->deadline(Millis(0), "");
    co_return Result<>();
  }

  Task<Result<>> exchange(const Call& call) {
    connection_->deadline(first_byte_timeout_, "upstream did not answer in time");
    std::string head = request_head(call);
    auto sent = co_await connection_->write(head, call.body);
    if (!sent && connection_->aborted()) co_return sent;
    // Not all taken, yet an answer may be there already (413 to a large body): it says more than a broken pipe.
    if (!sent) complete_ = false;
    while (!decoder_.head_done()) {
      if (auto got = co_await receive(); !got) co_return !sent && !heard() ? sent : got;
      BATON_CO_OK(parse(body_));
    }
    status_ = decoder_.status();
    headers_ = std::move(decoder_.headers());
    connection_->deadline(Millis(0), "");
    if (decoder_.done()) give_back();
    co_return Result<>();
  }

  Task<Result<>> fetch_into(std::string& body, size_t bytes_max) {
    body = std::exchange(body_, {});
    if (auto length = content_length(); length && *length <= bytes_max) body.reserve(static_cast<size_t>(*length));
    for (;;) {
      if (body.size() > bytes_max) {
        drop();
        co_return fail(Code::kResourceExhausted, "upstream response is over the limit of ", bytes_max, " bytes");
      }
      size_t before = body.size();
      BATON_CO_OK(co_await read_into(body));
      if (body.size() == before) co_return Result<>();
    }
  }

 private:
  Result<> parse(std::string& body) {
    Buffer& input = connection_->input();
    while (!input.empty() && !decoder_.done()) {
      auto used = decoder_.feed(input.view(), body);
      if (!used) {
        drop();
        return std::unexpected(used.error());
      }
      input.consume(*used);
      if (*used == 0) break;
    }
    return {};
  }

  Task<Result<>> receive() {
    auto n = co_await connection_->receive();
    if (!n) {
      Error error = std::move(n).error();
      if (error.code == Code::kUnavailable && decoder_.head_done()) error.code = Code::kDataLoss;
      drop();
      co_return std::unexpected(std::move(error));
    }
    if (*n > 0) co_return Result<>();
    auto ended = decoder_.feed_eof();
    complete_ = false;  // closed: nothing to keep
    if (!ended) drop();
    co_return ended;
  }

  void give_back() {
    auto pool = pool_.lock();
    guard_.release();
    if (pool && complete_ && decoder_.keep_alive() && connection_->input().empty()) pool->put(std::move(connection_));
    drop();
  }
  void drop() {
    guard_.release();
    connection_.reset();
  }

  std::shared_ptr<ClientConnection> connection_;
  std::weak_ptr<Pool> pool_;
  AbortGuard guard_;
  ResponseDecoder decoder_;
  Millis first_byte_timeout_, idle_timeout_;
  std::string body_;  // came with the head
  int status_ = 0;
  Headers headers_;
  bool complete_ = true;
};

}  // namespace

struct Client::Impl {
  explicit Impl(int idle_connections_max) : pool(std::make_shared<Pool>(idle_connections_max)) {}

  Task<Result<std::unique_ptr<Stream>>> open(const Call& call) {
    if (has_control_or_space(call.method) || has_control_or_space(call.target)) {
      co_return fail(Code::kInvalidArgument, "request method or target has a space or control character");
    }
    std::string key = cat(call.host, ' ', call.port);
    const std::string& name = call.server_name.empty() ? call.host : call.server_name;
    // The identity of the TlsClient is part of it: another one may trust others.
    if (call.tls) key += cat(' ', reinterpret_cast<uintptr_t>(call.tls.get()), ' ', name);
    for (bool may_reuse : {true, false}) {
      auto connection = may_reuse ? pool->take(key) : nullptr;
      bool reused = connection != nullptr;
      if (!reused) {
        connection = std::make_shared<ClientConnection>(Scope::here(), key);
        AbortGuard guard(connection, call.cancel);
        BATON_CO_OK(co_await connection->connect(call.host, call.port, call.connect_timeout, call.tls, name));
      }
      auto stream = std::make_unique<Stream>(std::move(connection), pool, call);
      auto exchanged = co_await stream->exchange(call);
      if (exchanged) co_return stream;
      // The server closed an idle connection just as we used it: it cannot have worked on this request.
      bool stale = reused && !stream->heard() && exchanged.error().code == Code::kUnavailable;
      if (!stale) co_return std::unexpected(std::move(exchanged).error());
    }
    co_return fail(Code::kUnavailable, "no connection");  // not reached: the second round is never `reused`
  }

  std::shared_ptr<Pool> pool;
};

Client::Client(int idle_connections_max) : impl_(std::make_shared<Impl>(idle_connections_max)) {}
Client::~Client() = default;

Task<Result<std::unique_ptr<ResponseStream>>> Client::open(Call call) {
  auto impl = impl_;
  BATON_CO_TRY(auto stream, co_await impl->open(call));
  co_return std::unique_ptr<ResponseStream>(std::move(stream));
}

Task<Result<Response>> Client::fetch(Call call) {
  auto impl = impl_;
  BATON_CO_TRY(auto stream, co_await impl->open(call));
  Response response{.status = stream->status(), .headers = stream->headers(), .body = {}};
  BATON_CO_OK(co_await stream->fetch_into(response.body, call.body_bytes_max));
  co_return response;
}

}  // namespace baton::net
