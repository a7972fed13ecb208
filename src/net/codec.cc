#include "net/codec.h"

// Beast 1.81 asserts n >= 5 where the last-chunk of an empty chunked body may come in pieces ("0\r\n", then "\r\n"). The code
// behind the assertion is right; the assertion would let any client stop us. codec_test feeds it byte by byte, the fuzzer under
// ASan.
#define BOOST_DISABLE_ASSERTS
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <limits>

#include "net/limits.h"

namespace baton::net {
namespace {

namespace http = boost::beast::http;
using Ec = boost::system::error_code;
using BeastView = boost::beast::string_view;

std::string_view view(BeastView s) { return {s.data(), s.size()}; }

// Beast's errors that mean more than "malformed".
Refusal refusal_for(const Ec& ec) {
  if (ec == http::error::header_limit) return {431, "request header fields are too large"};
  if (ec == http::error::bad_version) return {400, "malformed request line, or not HTTP/1.0 or HTTP/1.1"};
  return {400, cat("malformed HTTP message: ", ec.message())};
}

// What both directions share: fields into Headers, body bytes into a string, our own rules in on_field and on_head.
template <bool kRequest>
class Parser final : public http::basic_parser<kRequest> {
 public:
  Parser(size_t header_bytes_max, size_t body_bytes_max) : body_bytes_max_(body_bytes_max) {
    this->header_limit(static_cast<uint32_t>(std::min<size_t>(header_bytes_max, std::numeric_limits<uint32_t>::max())));
    this->body_limit(boost::none);  // ours is checked here, with its own status
    this->eager(true);
  }

  // Takes a prefix of input. Beast wants the same unfinished prefix again next time, longer.
  std::expected<size_t, Refusal> feed(std::string_view input, std::string* body) {
    body_ = body;
    size_t used = 0;
    while (used < input.size() && !this->is_done()) {
      Ec ec;
      used += this->put(boost::asio::buffer(input.data() + used, input.size() - used), ec);
      if (ec == http::error::need_more) {
        if (this->is_header_done() && input.size() - used > kChunkOverheadMax) {
          return std::unexpected(Refusal{400, "chunk header or trailers are too long"});
        }
        break;
      }
      if (refusal_) return std::unexpected(*refusal_);
      if (ec) return std::unexpected(refusal_for(ec));
    }
    return used;
  }

  std::string method, target;
  Headers headers;
  int status = 0;
  bool version10 = false;
  std::optional<uint64_t> length;  // Content-Length

 private:
  void refuse(Ec& ec, int answer, std::string message) {
    refusal_ = Refusal{answer, std::move(message)};
    ec = http::error::bad_value;
  }

  void on_request_impl(http::verb, BeastView m, BeastView t, int version, Ec&) override {
    method = view(m);
    target = view(t);
    version10 = version == 10;
  }
  void on_response_impl(int code, BeastView, int, Ec&) override { status = code; }

  void on_field_impl(http::field f, BeastView name, BeastView value, Ec& ec) override {
    if (this->is_header_done()) return;  // a trailer: not trusted, not needed
    if (headers.fields().size() >= kHeaderFieldsMax) {
      return refuse(ec, 431, cat("more than ", kHeaderFieldsMax, " header fields"));
    }
    if (f == http::field::content_length && kRequest) {
      // Equal repeats are legal to merge, but whoever sends them is probing for a proxy that reads the other one.
      if (lengths_++ > 0 || value.find(',') != BeastView::npos) return refuse(ec, 400, "more than one Content-Length");
    }
    if (f == http::field::transfer_encoding) {
      if (!same_header_name(view(value), "chunked")) {
        return refuse(ec, 501, "transfer codings other than chunked are not supported");
      }
      if (kRequest && version10) return refuse(ec, 400, "Transfer-Encoding in an HTTP/1.0 request");
    }
    if (f == http::field::host && hosts_++ > 0) return refuse(ec, 400, "more than one Host header");
    headers.add(view(name), view(value));
  }

  void on_header_impl(Ec& ec) override {
    if (auto n = this->content_length()) length = *n;
    if (!kRequest) return;
    if (!version10 && hosts_ == 0) return refuse(ec, 400, "missing Host header");
    if (length && *length > body_bytes_max_) {
      return refuse(ec, 413, cat("request body of ", *length, " bytes is over the limit of ", body_bytes_max_));
    }
    if (auto expect = headers.get("expect"); expect && !same_header_name(*expect, "100-continue")) {
      return refuse(ec, 417, "only Expect: 100-continue is supported");
    }
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>& n, Ec&) override {
    // A lying length must not reserve what never comes: beyond the first MiB the string grows as bytes arrive.
    if (kRequest && n && body_) body_->reserve(static_cast<size_t>(std::min<std::uint64_t>(*n, 1 << 20)));
  }
  std::size_t on_body_impl(BeastView bytes, Ec& ec) override { return append(bytes, ec); }
  void on_chunk_header_impl(std::uint64_t, BeastView, Ec&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, BeastView bytes, Ec& ec) override { return append(bytes, ec); }
  void on_finish_impl(Ec&) override {}

  std::size_t append(BeastView bytes, Ec& ec) {
    body_bytes_ += bytes.size();
    if (kRequest && body_bytes_ > body_bytes_max_) {
      refuse(ec, 413, cat("request body is over the limit of ", body_bytes_max_, " bytes"));
      return 0;
    }
    if (body_) body_->append(bytes.data(), bytes.size());
    return bytes.size();
  }

  size_t body_bytes_max_;
  uint64_t body_bytes_ = 0;
  std::string* body_ = nullptr;
  std::optional<Refusal> refusal_;
  int lengths_ = 0, hosts_ = 0;
};

// "http://host/path?x" and "/path?x" -> "/path?x"; RFC 9112 section 3.2.2 makes servers accept both.
std::string_view origin_form(std::string_view target) {
  for (std::string_view scheme : {"http://", "https://"}) {
    if (!target.starts_with(scheme)) continue;
    size_t slash = target.find('/', scheme.size());
    return slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  return target;
}

}  // namespace

struct RequestDecoder::Impl {
  size_t header_bytes_max, body_bytes_max;
  std::optional<Parser<true>> parser;
  std::string body;
  bool started = false;

  Parser<true>& fresh() { return parser.emplace(header_bytes_max, body_bytes_max); }
};

RequestDecoder::RequestDecoder(size_t header_bytes_max, size_t body_bytes_max)
    : impl_(std::make_unique<Impl>(Impl{header_bytes_max, body_bytes_max, {}, {}, false})) {
  impl_->fresh();
}
RequestDecoder::~RequestDecoder() = default;

std::expected<size_t, Refusal> RequestDecoder::feed(std::string_view input) {
  // RFC 9112 section 2.2: an empty line or two before a request line is forgiven (old clients end a body so).
  if (!impl_->started && input.starts_with("\r\n")) return 2;
  if (!impl_->started && input == "\r") return 0;
  if (!input.empty()) impl_->started = true;
  return impl_->parser->feed(input, &impl_->body);
}
bool RequestDecoder::started() const { return impl_->started; }
bool RequestDecoder::head_done() const { return impl_->parser->is_header_done(); }
bool RequestDecoder::done() const { return impl_->parser->is_done(); }
bool RequestDecoder::keep_alive() const { return impl_->parser->is_header_done() && impl_->parser->keep_alive(); }
bool RequestDecoder::http10() const { return impl_->parser->version10; }
bool RequestDecoder::wants_continue() const {
  const auto& p = *impl_->parser;
  return p.is_header_done() && !p.is_done() && !p.version10 && impl_->body.empty() && p.headers.get("expect").has_value();
}

std::string_view RequestDecoder::method() const { return impl_->parser->method; }
std::string_view RequestDecoder::target() const { return impl_->parser->target; }
std::string_view RequestDecoder::body() const { return impl_->body; }

Request RequestDecoder::take() {
  Request request;
  auto& p = *impl_->parser;
  request.method = std::move(p.method);
  request.target = std::move(p.target);
  request.headers = std::move(p.headers);
  request.body = std::exchange(impl_->body, {});
  std::string_view target = origin_form(request.target);
  size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string_view::npos) request.query = target.substr(question + 1);
  impl_->fresh();
  impl_->started = false;
  return request;
}

struct ResponseDecoder::Impl {
  bool to_head_request;
  size_t header_bytes_max;
  std::optional<Parser<false>> parser;
  bool started = false;
  int interim = 0;

  void fresh() {
    parser.emplace(header_bytes_max, std::numeric_limits<size_t>::max());
    parser->skip(to_head_request);
  }
};

ResponseDecoder::ResponseDecoder(bool to_head_request, size_t header_bytes_max)
    : impl_(std::make_unique<Impl>(Impl{to_head_request, header_bytes_max, {}, false, 0})) {
  impl_->fresh();
}
ResponseDecoder::~ResponseDecoder() = default;

Result<size_t> ResponseDecoder::feed(std::string_view input, std::string& body) {
  size_t used = 0;
  if (!input.empty()) impl_->started = true;
  for (;;) {
    auto n = impl_->parser->feed(input.substr(used), &body);
    if (!n) return fail(Code::kInternal, "upstream response: ", n.error().message);
    used += *n;
    if (!impl_->parser->is_done() || impl_->parser->status / 100 != 1) return used;
    if (impl_->parser->status == 101 || ++impl_->interim > kInterimResponsesMax) {
      return fail(Code::kInternal, "upstream response: unexpected interim status ", impl_->parser->status);
    }
    impl_->fresh();
  }
}

Result<> ResponseDecoder::feed_eof() {
  if (!started()) return fail(Code::kUnavailable, "upstream closed the connection before its response");
  if (!head_done()) return fail(Code::kUnavailable, "upstream closed the connection inside the response head");
  Ec ec;
  if (!done()) impl_->parser->put_eof(ec);
  if (ec) return fail(Code::kDataLoss, "upstream closed the connection inside the response body");
  return {};
}
bool ResponseDecoder::started() const { return impl_->started; }
bool ResponseDecoder::head_done() const { return impl_->parser->is_header_done(); }
bool ResponseDecoder::done() const { return impl_->parser->is_done(); }
bool ResponseDecoder::keep_alive() const { return impl_->parser->is_header_done() && impl_->parser->keep_alive(); }
int ResponseDecoder::status() const { return impl_->parser->status; }
Headers& ResponseDecoder::headers() { return impl_->parser->headers; }
std::optional<uint64_t> ResponseDecoder::content_length() const { return impl_->parser->length; }

}  // namespace baton::net
