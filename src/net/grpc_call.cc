#include "net/grpc_call.h"

#include <charconv>

#include "base/log.h"

namespace baton::net {
namespace {

bool is_grpc_content(std::string_view value) {
  constexpr std::string_view kGrpc = "application/grpc";
  if (!value.starts_with(kGrpc)) return false;
  return value.size() == kGrpc.size() || value[kGrpc.size()] == '+' || value[kGrpc.size()] == ';';
}

constexpr H2Field kStatus200{":status", "200"}, kContentType{"content-type", "application/grpc"};

}  // namespace

void GrpcInbox::post(std::shared_ptr<GrpcAnchor> anchor, std::move_only_function<void()> f) {
  std::lock_guard lock(mutex_);
  if (!scope_) return;
  BATON_CHECK(items_.size() < kGrpcPostedMax);
  items_.push_back({std::move(anchor), std::move(f)});
  // Under the lock: close() comes before the loop goes.
  if (items_.size() == 1) scope_->post([self = shared_from_this()] { self->run(); });
}

void GrpcInbox::run() {
  std::vector<Item> items;
  {
    std::lock_guard lock(mutex_);
    items.swap(items_);
  }
  for (Item& item : items) {
    if (item.anchor->alive) item.f();
  }
}

void GrpcInbox::close() {
  std::vector<Item> dropped;  // destroyed without the lock: a function may own a poster
  std::lock_guard lock(mutex_);
  scope_ = nullptr;
  dropped.swap(items_);
}

GrpcConnection::GrpcConnection(GrpcThread& thread, Channel channel)
    : H2Connection(*thread.loop, std::move(channel),
                   {.streams_max = thread.options.streams_max,
                    .window_bytes = thread.options.window_bytes,
                    .header_bytes_max = 64u << 10,
                    .resets_burst = kGrpcResetsBurst,
                    .resets_per_s = kGrpcResetsPerS},
                   thread.options.unsent_bytes_max),
      thread_(thread) {}

H2Stream* GrpcConnection::make_stream() {
  ++thread_.calls;
  if (!std::exchange(used_, true)) keep_buffers();  // proxies keep few connections, and these busy
  return new GrpcStream(*this);                     // owned by itself: the session says on_closed exactly once
}

void GrpcConnection::on_gone() { thread_.on_connection_gone(); }

GrpcStream::~GrpcStream() {
  connection_.partial_bytes() -= deframer_.held();
  --connection_.thread().calls;
}

void GrpcStream::on_field(std::string_view name, std::string_view value) {
  switch (name.size()) {
    case 5:
      if (name == ":path") path_ = value;
      return;
    case 7:
      if (name == ":method") is_post_ = value == "POST";
      return;
    case 12:
      if (name == "content-type") is_grpc_ = is_grpc_content(value);
      return;
    case 13:
      if (name != "grpc-encoding") return;
      encoding_ = value == "identity" ? Encoding::kIdentity : value == "gzip" ? Encoding::kGzip : Encoding::kUnknown;
      return;
    default:
      return;
  }
}

// Not gRPC at all: an HTTP answer.
void GrpcStream::refuse(std::string_view status) {
  const H2Field fields[] = {{":status", status}};
  done_ = true;
  connection_.session().respond(*this, fields, true);
}

void GrpcStream::on_head() {
  if (head_too_large()) return refuse("431");
  if (!is_post_) return refuse("405");
  if (!is_grpc_) return refuse("415");
  if (encoding_ == Encoding::kUnknown) return finish(Code::kUnimplemented, "grpc: this grpc-encoding is not supported");
  handler_ = connection_.thread().factory(*this);
  if (handler_ || done_) return;
  finish(Code::kUnimplemented, cat("unknown method ", path_));
}

void GrpcStream::on_data(std::string_view bytes) {
  if (done_) return;
  size_t before = deframer_.held();
  auto fed = deframer_.feed(bytes, connection_.thread().options.message_bytes_max,
                            [this](std::string_view message, bool compressed) { return on_message(message, compressed); });
  size_t& partial = connection_.partial_bytes();
  partial += deframer_.held() - before;
  if (!fed) return finish(fed.error().code, fed.error().message);
  if (partial > kGrpcPartialBytesMax) finish(Code::kResourceExhausted, "too many incomplete messages on this connection");
}

bool GrpcStream::on_message(std::string_view message, bool compressed) {
  if (!handler_) return false;
  if (!compressed) {
    handler_->on_message(message);
    return !done_;
  }
  if (encoding_ != Encoding::kGzip) {
    finish(Code::kInternal, "grpc: compressed flag set without grpc-encoding");
    return false;
  }
  auto plain = gunzip(message, connection_.thread().options.message_bytes_max);
  if (plain) {
    handler_->on_message(*plain);
  } else {
    finish(plain.error().code, plain.error().message);
  }
  return !done_;
}

void GrpcStream::on_end() {
  if (done_) return;
  if (deframer_.inside()) return finish(Code::kInternal, "grpc: the stream ended inside a message");
  if (handler_) handler_->on_half_close();
}

void GrpcStream::on_closed() {
  done_ = true;
  if (anchor_) anchor_->alive = false;
  if (handler_) handler_->on_closed();
  delete this;
}

void GrpcStream::on_room() {
  if (handler_ && !done_) handler_->on_room();
}

void GrpcStream::write_pieces(std::span<const std::string_view> pieces) {
  if (done_) return;
  H2Session& session = connection_.session();
  if (!responded()) {
    const H2Field fields[] = {kStatus200, kContentType};
    session.respond(*this, fields, false);
  }
  size_t bytes = 0;
  for (std::string_view piece : pieces) bytes += piece.size();
  session.write(*this, GrpcPrefix(bytes).view(), pieces);
}

void GrpcStream::finish(Code code, std::string_view message) {
  if (std::exchange(done_, true) || closed()) return;
  H2Session& session = connection_.session();
  char digits[4];
  auto end = std::to_chars(digits, digits + sizeof digits, static_cast<int>(code)).ptr;
  std::string encoded = grpc_percent_encoded(message);
  H2Field fields[5] = {kStatus200, kContentType, {"grpc-status", std::string_view(digits, static_cast<size_t>(end - digits))}};
  size_t n = 3;
  if (!message.empty()) fields[n++] = {"grpc-message", encoded};
  if (code == Code::kUnimplemented) fields[n++] = {"grpc-accept-encoding", "identity,gzip"};
  std::span<const H2Field> all(fields, n);
  if (responded()) {
    session.finish(*this, all.subspan(2));
  } else {
    session.respond(*this, all, true);  // "Trailers-Only"
  }
}

std::function<void(std::move_only_function<void()>)> GrpcStream::poster() {
  if (!anchor_) anchor_ = std::make_shared<GrpcAnchor>();
  // Copies of the std::function share one anchor; f is moved out of a copyable wrapper's argument.
  return [inbox = connection_.thread().inbox, anchor = anchor_](std::move_only_function<void()> f) {
    inbox->post(anchor, std::move(f));
  };
}

}  // namespace baton::net
