// Frames as a stranger may send them. Properties: the reader reports the same frames however the bytes are split, it never wants
// more than limits.h allows, and what decodes encodes to a prefix of the body again.
#include <algorithm>

#include "base/prng.h"
#include "transfer/conn.h"
#include "transfer/frame.h"

namespace baton::transfer {
namespace {

template <class M>
void round_trip(std::span<const std::byte> body) {
  if (auto m = decode<M>(body)) {
    auto again = encode_body(*m);
    BATON_CHECK(again.size() <= body.size() && std::memcmp(again.data(), body.data(), again.size()) == 0);
  }
}

struct Recorder : FrameHandler {
  std::vector<uint64_t> seen;
  std::vector<std::byte> block = std::vector<std::byte>(4096);
  Result<> on_frame(FrameType type, std::span<const std::byte> body) override {
    BATON_CHECK(body.size() <= kControlBodyMax);
    seen.push_back(static_cast<uint64_t>(type) << 32 | body.size());
    return type == FrameType::kReject ? fail(Code::kAborted, "rejected") : Result<>{};
  }
  Result<Landing> on_chunk(const ChunkHead& head, size_t payload) override {
    BATON_CHECK(payload <= kChunkPayloadMax);
    seen.push_back(head.op << 32 | payload);
    if (head.op % 3 == 0) return Landing{.report = head.op % 2 == 0, .parts = {}};
    if (head.op % 3 == 1 && payload <= block.size()) {
      auto half = payload / 2;
      std::vector<iovec> parts;
      if (half > 0) parts.push_back({block.data(), half});
      if (payload > half) parts.push_back({block.data() + half, payload - half});
      return Landing{.kind = Landing::Kind::kScatter, .parts = std::move(parts)};
    }
    return Landing{.kind = Landing::Kind::kCollect, .parts = {}};
  }
  Result<> on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected) override {
    seen.push_back(head.op + collected.size());
    return {};
  }
  void on_closed(const Error&) override {}
};

std::vector<uint64_t> read_all(std::span<const uint8_t> data, uint64_t seed) {
  Recorder r;
  FrameReader reader(r);
  Prng prng(seed);
  bool ok = true;
  while (ok && !data.empty()) {
    auto want = reader.want();
    size_t room = 0, done = 0;
    for (auto& p : want) room += p.iov_len;
    BATON_CHECK(room > 0);
    auto n = std::min(room, data.size());
    if (seed != 0) n = 1 + prng.below(n);
    for (auto& p : want) {
      auto k = std::min(p.iov_len, n - done);
      std::memcpy(p.iov_base, data.data() + done, k);
      done += k;
    }
    ok = reader.got(n).has_value();
    data = data.subspan(n);
  }
  r.seen.push_back(ok);
  return std::move(r.seen);
}

// The frame checksum would stop nearly every mutation; here it is made right, as a lying peer would.
void mend(std::vector<uint8_t>& data) {
  for (size_t at = 0; at + kFrameHeaderBytes <= data.size();) {
    uint32_t length = 0;
    uint16_t type = 0;
    std::memcpy(&length, &data[at], 4);
    std::memcpy(&type, &data[at + 4], 2);
    auto body = data.size() - at - kFrameHeaderBytes;
    auto covered = type == static_cast<uint16_t>(FrameType::kChunk) ? kChunkHeadBytes : size_t{length};
    if (covered > body) return;
    auto sum = frame_checksum(static_cast<FrameType>(type), length,
                              std::as_bytes(std::span(data)).subspan(at + kFrameHeaderBytes, covered));
    std::memcpy(&data[at + 8], &sum, 8);
    at += kFrameHeaderBytes + length;
  }
}

}  // namespace
}  // namespace baton::transfer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::transfer;
  auto body = std::as_bytes(std::span(data, size));
  round_trip<Hello>(body);
  round_trip<Accept>(body);
  round_trip<Reject>(body);
  round_trip<Auth>(body);
  round_trip<Ready>(body);
  round_trip<Ucx>(body);
  round_trip<Heartbeat>(body);
  round_trip<Echo>(body);
  round_trip<Probe>(body);
  round_trip<FetchMsg>(body);
  round_trip<Opened>(body);
  round_trip<Credit>(body);
  round_trip<Close>(body);
  round_trip<Failed>(body);
  round_trip<Decline>(body);
  round_trip<Await>(body);
  round_trip<Completed>(body);
  round_trip<Keep>(body);
  std::vector<uint8_t> copy(data, data + size);
  for (bool honest : {false, true}) {
    if (honest) mend(copy);
    BATON_CHECK(read_all(copy, 0) == read_all(copy, 0x9e37 + size));
  }
  return 0;
}
