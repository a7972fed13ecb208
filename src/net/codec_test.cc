// The rules of codec.h one by one: what is accepted, what is refused and with which status, whole and byte by byte.
#include "net/codec.h"

#include "net/limits.h"

namespace baton::net {
namespace {

using testing::HasSubstr;

struct Verdict {
  std::vector<Request> requests;
  int status = 0;
  std::string message;
};

Verdict decode(std::string_view text, size_t step) {
  Verdict verdict;
  RequestDecoder decoder(4096, 1000);
  std::string input;
  for (size_t at = 0; at < text.size(); at += step) {
    input += text.substr(at, step);
    for (;;) {
      auto used = decoder.feed(input);
      if (!used) {
        verdict.status = used.error().status;
        verdict.message = used.error().message;
        return verdict;
      }
      input.erase(0, *used);
      if (decoder.done()) {
        verdict.requests.push_back(decoder.take());
      } else if (*used == 0 || input.empty()) {
        break;
      }
    }
  }
  return verdict;
}

int status_of(const std::string& text) {
  Verdict whole = decode(text, text.size()), bytes = decode(text, 1);
  EXPECT_EQ(whole.requests.size(), bytes.requests.size()) << text;
  if (bytes.status) EXPECT_EQ(whole.status, bytes.status) << text;
  if (whole.status) return whole.status;
  return whole.requests.empty() ? 0 : 200;
}

std::string request(std::string_view fields, std::string_view body = "", std::string_view line = "POST / HTTP/1.1") {
  return cat(line, "\r\nHost: x\r\n", fields, "\r\n", body);
}

TEST(Codec, AcceptsOrdinaryRequests) {
  EXPECT_EQ(status_of(request("")), 200);
  EXPECT_EQ(status_of(request("Content-Length: 3\r\n", "abc")), 200);
  EXPECT_EQ(status_of(request("Content-Length: 4\r\n", "abc")), 0);  // waits for more
  EXPECT_EQ(status_of("GET / HTTP/1.0\r\n\r\n"), 200);
  EXPECT_EQ(status_of("\r\n\r\n" + request("")), 200);
  auto v = decode(request("X: 1\r\nx: 2\r\nContent-Length: 3\r\n", "abc", "POST http://h:1/p/q?a=b HTTP/1.1"), 1000);
  ASSERT_EQ(v.requests.size(), 1u);
  EXPECT_EQ(v.requests[0].path, "/p/q");
  EXPECT_EQ(v.requests[0].query, "a=b");
  EXPECT_EQ(v.requests[0].body, "abc");
  EXPECT_EQ(v.requests[0].headers.get_all("X"), (std::vector<std::string_view>{"1", "2"}));
}

TEST(Codec, PipelinedRequests) {
  std::string two = request("Content-Length: 3\r\n", "abc") + request("Transfer-Encoding: chunked\r\n", "2\r\nde\r\n0\r\n\r\n");
  for (size_t step : {size_t{1}, size_t{7}, two.size()}) {
    auto v = decode(two, step);
    ASSERT_EQ(v.requests.size(), 2u);
    EXPECT_EQ(v.requests[0].body, "abc");
    EXPECT_EQ(v.requests[1].body, "de");
  }
}

TEST(Codec, ChunkedBodies) {
  auto body = [](std::string_view chunks) {
    std::string text = request("Transfer-Encoding: chunked\r\n", chunks);
    for (size_t step : {size_t{1}, size_t{2}, size_t{3}, text.size()}) {
      auto v = decode(text, step);
      if (v.requests.size() != 1 || v.status) return cat("status ", v.status);
      if (step == text.size()) return v.requests[0].body;
    }
    return std::string();
  };
  EXPECT_EQ(body("0\r\n\r\n"), "");
  EXPECT_EQ(body("3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n"), "abc0123456789");
  EXPECT_EQ(body("3;name=value;q=\"x;\"\r\nabc\r\n0;last\r\n\r\n"), "abc");
  EXPECT_EQ(body("1\r\na\r\n0\r\nTrailer: x\r\n\r\n"), "a");
  EXPECT_EQ(body("1\r\nab\r\n0\r\n\r\n"), "status 400");
  EXPECT_EQ(body("x\r\n"), "status 400");
  EXPECT_EQ(body("-1\r\na\r\n0\r\n\r\n"), "status 400");
  EXPECT_EQ(body("ffffffffffffffff1\r\n"), "status 400");
  EXPECT_EQ(body("1\na\r\n0\r\n\r\n"), "status 400");
  EXPECT_EQ(body("1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n"), "status 400");
}

TEST(Codec, TrailersAreDropped) {
  auto v = decode(request("Transfer-Encoding: chunked\r\n", "0\r\nX-Prefiller-Host-Port: evil\r\n\r\n"), 1000);
  ASSERT_EQ(v.requests.size(), 1u);
  EXPECT_FALSE(v.requests[0].headers.get("x-prefiller-host-port").has_value());
}

TEST(Codec, RefusesWhatTwoParsersCouldReadDifferently) {
  EXPECT_EQ(status_of(request("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), 400);
  EXPECT_EQ(status_of(request("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n")), 400);
  EXPECT_EQ(status_of(request("Content-Length: 3\r\nContent-Length: 3\r\n", "abc")), 400);
  EXPECT_EQ(status_of(request("Content-Length: 3\r\nContent-Length: 4\r\n", "abc")), 400);
  EXPECT_EQ(status_of(request("Content-Length: 3, 3\r\n", "abc")), 400);
  EXPECT_EQ(status_of(request("Content-Length: +3\r\n", "abc")), 400);
  EXPECT_EQ(status_of(request("Content-Length: -3\r\n", "abc")), 400);
  EXPECT_EQ(status_of(request("Content-Length: 0x3\r\n", "abc")), 400);
  EXPECT_EQ(status_of(request("Content-Length:\r\n", "abc")), 400);
  EXPECT_EQ(status_of(request("Content-Length: 99999999999999999999999\r\n")), 400);
  EXPECT_EQ(status_of(request("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status_of(request("Content-Length : 3\r\n", "abc")), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n Host: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of(request("Host: y\r\n")), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\nHost: x\n\n"), 400);
  EXPECT_EQ(status_of(request("A: b\nC: d\r\n")), 400);
  EXPECT_EQ(status_of(request(std::string_view("A: b\0c\r\n", 8))), 400);
  EXPECT_EQ(status_of(request("A: b\rc\r\n")), 400);
}

TEST(Codec, RefusesUnsupported) {
  EXPECT_EQ(status_of(request("Transfer-Encoding: gzip, chunked\r\n")), 501);
  EXPECT_EQ(status_of(request("Transfer-Encoding: identity\r\n")), 501);
  EXPECT_EQ(status_of(request("Expect: tea\r\n")), 417);
  EXPECT_EQ(status_of(request("", "", "GET / HTTP/2.0")), 400);
  EXPECT_EQ(status_of(request("", "", "GET  / HTTP/1.1")), 400);
  EXPECT_EQ(status_of(request("", "", "G\x01T / HTTP/1.1")), 400);
  EXPECT_EQ(status_of("\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), 400);  // TLS to a plain port
}

TEST(Codec, Limits) {
  EXPECT_EQ(status_of(request("Content-Length: 1001\r\n")), 413);
  EXPECT_EQ(status_of(request("Transfer-Encoding: chunked\r\n", cat("3e9\r\n", std::string(1001, 'x'), "\r\n0\r\n\r\n"))), 413);
  EXPECT_EQ(status_of(request(cat("A: ", std::string(5000, 'x'), "\r\n"))), 431);
  EXPECT_EQ(status_of(request("", "", cat("GET /", std::string(5000, 'x'), " HTTP/1.1"))), 431);
  std::string many;
  for (int i = 0; i < kHeaderFieldsMax; ++i) many += "a:b\r\n";
  EXPECT_EQ(status_of(request(many)), 431);
  std::string endless = "1;" + std::string(kChunkOverheadMax + 100, 'x');
  EXPECT_EQ(status_of(request("Transfer-Encoding: chunked\r\n", endless)), 400);
}

TEST(Codec, ResponsesEndWhereTheyShould) {
  auto decode_response = [](std::string_view text, bool head = false) -> Result<std::string> {
    ResponseDecoder decoder(head, 4096);
    std::string body;
    BATON_TRY(size_t used, decoder.feed(text, body));
    if (!decoder.done()) BATON_OK(decoder.feed_eof());
    return cat(decoder.status(), ' ', body, decoder.keep_alive() ? " keep" : " close", used == text.size() ? "" : " rest");
  };
  EXPECT_EQ(decode_response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcX"), "200 abc keep rest");
  EXPECT_EQ(decode_response("HTTP/1.1 200 OK\r\n\r\nabc"), "200 abc close");
  EXPECT_EQ(decode_response("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"), "200 abc close");
  EXPECT_EQ(decode_response("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
            "204  keep");
  EXPECT_EQ(decode_response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true), "200  keep");
  EXPECT_EQ(decode_response("HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n"), "304  keep");
  EXPECT_EQ(decode_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"), "200 a keep");
  EXPECT_EQ(decode_response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").error().code, Code::kDataLoss);
  EXPECT_EQ(decode_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").error().code, Code::kDataLoss);
  EXPECT_EQ(decode_response("HTTP/1.1 200 OK\r\nConte").error().code, Code::kUnavailable);
  EXPECT_EQ(decode_response("").error().code, Code::kUnavailable);
  EXPECT_EQ(decode_response("SSH-2.0-x\r\n").error().code, Code::kInternal);
  EXPECT_EQ(decode_response("HTTP/1.1 101 Switching\r\n\r\n").error().code, Code::kInternal);
}

}  // namespace
}  // namespace baton::net
