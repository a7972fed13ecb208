// What a stranger can send to an HTTP/2 port, without a socket: raw frames behind a good preface, in pieces. Properties: events
// keep their order, every stream hears on_closed once, what is counted as unsent returns to zero, and the session ends or goes
// on, never hangs. The first byte says how the input is cut and what the streams do.
#include <cstring>

#include "base/result.h"
#include "net/h2_session.h"
#include "net/h2_test_frames.h"

namespace {

using namespace baton;
using namespace baton::net;

int alive = 0;

struct FuzzHost final : H2Session::Host {
  H2Stream* make_stream() override;
  void on_output() override {}
  H2Session* session = nullptr;
  int mode = 0;
};

struct FuzzStream final : H2Stream {
  explicit FuzzStream(FuzzHost& h) : host(h) { ++alive; }
  ~FuzzStream() override { --alive; }
  void on_field(std::string_view name, std::string_view) override {
    BATON_CHECK(!head && !name.empty());
    bytes += name.size();
    BATON_CHECK(bytes < (64u << 10));
  }
  void on_head() override {
    BATON_CHECK(!std::exchange(head, true));
    const H2Field fields[] = {{":status", "200"}, {"content-type", "application/grpc"}};
    if (host.mode & 1) host.session->respond(*this, fields, (host.mode & 6) == 6);
  }
  void on_data(std::string_view data) override {
    BATON_CHECK(head && !ended && !closed());
    const H2Field fields[] = {{":status", "200"}};
    if (host.mode & 2) host.session->respond(*this, fields, false);
    host.session->write(*this, "head", {&data, 1});
    if (host.mode & 4) host.session->finish(*this, fields);
    if ((host.mode & 24) == 24) host.session->reset(*this, kH2Cancel);
  }
  void on_end() override {
    BATON_CHECK(head && !std::exchange(ended, true));
    const H2Field trailers[] = {{"grpc-status", "0"}};
    host.session->finish(*this, trailers);
  }
  void on_closed() override { delete this; }
  FuzzHost& host;
  size_t bytes = 0;
  bool head = false, ended = false;
};

H2Stream* FuzzHost::make_stream() { return mode & 32 && alive > 3 ? nullptr : new FuzzStream(*this); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size < 2) return 0;
  FuzzHost host;
  host.mode = bytes[1];
  H2Session session(host, {.streams_max = 100, .window_bytes = 70'000, .header_bytes_max = 4000});
  host.session = &session;
  std::string text;
  if (!(bytes[0] & 128)) text = cat(kTestPreface, frame(Frame::kSettings, 0, 0));
  text.append(reinterpret_cast<const char*>(bytes) + 2, size - 2);
  size_t step = bytes[0] & 64 ? text.size() : 1 + bytes[0] % 61;
  H2Output output;
  for (size_t at = 0; at < text.size(); at += step) {
    if (!session.feed(std::string_view(text).substr(at, step))) break;
    if (bytes[1] & 64 && at > text.size() / 2) session.drain();
    for (int i = 0; i < 100; ++i) {
      output.clear();
      session.gather(output, bytes[1] & 128);
      std::vector<iovec> pieces;
      output.iovecs(pieces);
      size_t total = 0;
      for (const iovec& p : pieces) {
        std::string copy(static_cast<const char*>(p.iov_base), p.iov_len);  // readable
        total += copy.size();
      }
      BATON_CHECK(total == output.bytes());
      session.reap();
      if (output.empty()) break;
    }
  }
  session.close_all();
  BATON_CHECK(session.unsent() == 0 && alive == 0);
  return 0;
}
