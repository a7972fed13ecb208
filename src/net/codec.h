#pragma once
// HTTP/1.1 message decoders over bytes, no sockets: feed() takes what it can use of a prefix of the connection's input and says
// how much that was; give the rest again with more behind it. Beast's parser does the grammar (this folder's only file that
// includes it); what it leaves open is closed here: one Content-Length, no Content-Length beside Transfer-Encoding, no coding but
// chunked, exactly one Host, bounds on fields, body and chunk overhead. Source: RFC 9112 sections 2 to 7, 11.
#include <expected>
#include <memory>
#include <string>
#include <string_view>

#include "net/http.h"

namespace baton::net {

// Why a message is not acceptable and the status to answer with.
struct Refusal {
  int status = 400;
  std::string message;
};

class RequestDecoder {
 public:
  RequestDecoder(size_t header_bytes_max, size_t body_bytes_max);
  ~RequestDecoder();
  std::expected<size_t, Refusal> feed(std::string_view input);
  bool started() const;  // bytes of this request were taken or seen
  bool head_done() const;
  bool done() const;        // head and body complete; take() it
  bool keep_alive() const;  // what the client asked for
  bool http10() const;
  bool wants_continue() const;                      // Expect: 100-continue and the body is still to come
  std::string_view method() const, target() const;  // once head_done()
  std::string_view body() const;                    // what has come of it
  Request take();                                   // and start over for the next request

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class ResponseDecoder {
 public:
  ResponseDecoder(bool to_head_request, size_t header_bytes_max);
  ~ResponseDecoder();
  // Body bytes are appended to `body`. Interim (1xx) responses are skipped.
  Result<size_t> feed(std::string_view input, std::string& body);
  Result<> feed_eof();  // ok if the message may end here
  bool started() const;
  bool head_done() const;
  bool done() const;
  bool keep_alive() const;  // the connection may carry another request
  int status() const;
  Headers& headers();
  std::optional<uint64_t> content_length() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::net
