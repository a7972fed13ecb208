#include "transfer/frame.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "transfer/auth.h"
#include "transfer/conn.h"

namespace baton::transfer {
namespace {

std::span<const std::byte> bytes(std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); }

struct Recorder : FrameHandler {
  std::vector<std::string> seen;
  Result<> on_frame(FrameType type, std::span<const std::byte> body) override {
    seen.push_back(cat("frame ", static_cast<int>(type), " ", body.size()));
    return {};
  }
  Result<Landing> on_chunk(const ChunkHead& head, size_t payload) override {
    seen.push_back(cat("chunk ", head.op, " ", payload));
    return Landing{.kind = Landing::Kind::kCollect, .parts = {}};
  }
  Result<> on_chunk_end(const ChunkHead&, std::span<const std::byte> collected) override {
    seen.push_back(std::string(reinterpret_cast<const char*>(collected.data()), collected.size()));
    return {};
  }
  void on_closed(const Error&) override {}
};

Result<> feed(FrameReader& reader, std::string_view all, Prng* prng) {
  while (!all.empty()) {
    auto want = reader.want();
    size_t room = 0, done = 0;
    for (auto& p : want) room += p.iov_len;
    auto n = std::min(room, all.size());
    if (prng != nullptr) n = 1 + prng->below(n);
    for (auto& p : want) {
      auto k = std::min(p.iov_len, n - done);
      std::memcpy(p.iov_base, all.data() + done, k);
      done += k;
    }
    BATON_OK(reader.got(n));
    all.remove_prefix(n);
  }
  return {};
}

TEST(Frame, MessagesSurviveTheWire) {
  FetchMsg in{.op = 7,
              .token = {1, 2, 3},
              .incarnation = ~0ull,
              .digest = {9},
              .first_token = 16,
              .n_tokens = 100,
              .path = Path::kShm,
              .chunk_bytes = 5,
              .credit = 6};
  auto wire = encode(in);
  auto header = decode_header(bytes(wire).first(kFrameHeaderBytes));
  ASSERT_TRUE(header);
  EXPECT_EQ(header->length, wire.size() - kFrameHeaderBytes);
  auto out = decode<FetchMsg>(bytes(wire).subspan(kFrameHeaderBytes));
  ASSERT_TRUE(out);
  EXPECT_EQ(encode(*out), wire);
  Heartbeat beat{.echo = 1, .grants = {{1}, {2}, {3}}};
  EXPECT_EQ(decode<Heartbeat>(bytes(encode_body(beat)))->grants, beat.grants);
  EXPECT_EQ(encode_chunk({}, 0).size(), kFrameHeaderBytes + kChunkHeadBytes);
}

TEST(Frame, EveryTruncationIsAnErrorAndTrailingBytesAreNot) {
  Hello hello{.engine_id = "e", .incarnation = 1, .fingerprint = "f", .boot_id = "b"};
  auto body = encode_body(hello);
  for (size_t n = 0; n < body.size(); ++n) EXPECT_FALSE(decode<Hello>(bytes(body).first(n))) << n;
  EXPECT_TRUE(decode<Hello>(bytes(body + "from a later version")));
}

TEST(Frame, AnyFlippedBitIsNoticed) {
  auto wire = encode(Credit{3, 4096}) + encode(Close{3, true});
  for (size_t bit = 0; bit < wire.size() * 8; ++bit) {
    auto bad = wire;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    Recorder r;
    FrameReader reader(r);
    auto result = feed(reader, bad, nullptr);
    EXPECT_TRUE(!result || r.seen.size() < 2) << "bit " << bit;  // an error, or a length that waits for more
  }
}

TEST(Frame, HugeLengthsAreRefusedAtTheHeader) {
  for (uint32_t length : {uint32_t{kControlBodyMax} + 1, 1u << 31, ~0u}) {
    auto header = encode_body(FrameHeader{length, static_cast<uint16_t>(FrameType::kHello), 0, 0});
    EXPECT_FALSE(decode_header(bytes(header)));
    header = encode_body(FrameHeader{length, 999, 0, 0});
    EXPECT_FALSE(decode_header(bytes(header)));
  }
  for (uint32_t length : {0u, 31u, ~0u})
    EXPECT_FALSE(decode_header(bytes(encode_body(FrameHeader{length, static_cast<uint16_t>(FrameType::kChunk), 0, 0}))));
}

TEST(Frame, ReaderGivesTheSameHoweverBytesArrive) {
  uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Prng prng(seed);
  auto wire = encode(Credit{1, 2}) + encode_chunk({.op = 5}, 11) + "hello block" + frame(static_cast<FrameType>(777), "later") +
              frame(static_cast<FrameType>(778), "") + encode_chunk({.op = 6}, 0) + encode(Decline{});
  Recorder whole;
  FrameReader a(whole);
  ASSERT_TRUE(feed(a, wire, nullptr));
  ASSERT_EQ(whole.seen.size(), 8u);
  for (int i = 0; i < 200; ++i) {
    Recorder split;
    FrameReader b(split);
    ASSERT_TRUE(feed(b, wire, &prng));
    EXPECT_EQ(split.seen, whole.seen);
  }
}

TEST(Token, Text) {
  auto t = token_from("00112233445566778899aabbccddeeFF");
  ASSERT_TRUE(t);
  EXPECT_EQ(token_text(*t), "00112233445566778899aabbccddeeff");
  EXPECT_FALSE(token_from(""));
  EXPECT_FALSE(token_from("00112233445566778899aabbccddeefg"));
}

// RFC 4231, test cases 1, 2 and 6.
TEST(Auth, HmacVectors) {
  EXPECT_EQ(hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hex(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Auth, ProofsAreBoundToSideNoncesAndIdentities) {
  Hello h;
  h.engine_id = "a";
  h.nonce = {1};
  Accept a;
  a.engine_id = "b";
  a.nonce = {2};
  auto proof = handshake_proof("s", Prover::kConsumer, h, a);
  EXPECT_NE(proof, handshake_proof("s", Prover::kProducer, h, a));
  EXPECT_NE(proof, handshake_proof("t", Prover::kConsumer, h, a));
  auto h2 = h;
  h2.nonce[0] = 9;
  EXPECT_NE(proof, handshake_proof("s", Prover::kConsumer, h2, a));
  auto a2 = a;
  a2.engine_id = "c";
  EXPECT_NE(proof, handshake_proof("s", Prover::kConsumer, h, a2));
  a.proof = {7};
  EXPECT_EQ(proof, handshake_proof("s", Prover::kConsumer, h, a)) << "the proof itself is not part of what is proven";
}

}  // namespace
}  // namespace baton::transfer
