#include "transfer/frame.h"

#include <bit>

#include "base/prng.h"
#include "transfer/checksum.h"

namespace baton::transfer {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian and copied as is");

namespace {
std::span<const std::byte> as_bytes(std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); }
}  // namespace

std::string_view path_name(Path p) {
  static constexpr std::string_view kNames[] = {"tcp", "shm", "ucx", "ucx_get"};
  auto i = static_cast<size_t>(p);
  return i < std::size(kNames) ? kNames[i] : "unknown";
}

std::string_view refusal_name(Refusal r) {
  static constexpr std::string_view kNames[] = {"none",   "magic",          "version", "fingerprint",
                                                "layout", "authentication", "self",    "busy"};
  auto i = static_cast<size_t>(r);
  return i < std::size(kNames) ? kNames[i] : "unknown";
}

std::string token_text(const Token& t) { return hex(std::span<const unsigned char>(t)); }

Result<Token> token_from(std::string_view text) {
  Token token;
  if (text.size() != 2 * token.size()) return fail(Code::kInvalidArgument, "a grant has 32 hex digits, this one ", text.size());
  auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  for (size_t i = 0; i < token.size(); ++i) {
    int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return fail(Code::kInvalidArgument, "a grant has 32 hex digits; character ", 2 * i, " is none");
    token[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return token;
}

uint64_t frame_checksum(FrameType type, uint32_t length, std::span<const std::byte> body) {
  return checksum(body, uint64_t{length} << 16 | static_cast<uint16_t>(type));
}

std::string frame(FrameType type, std::string_view body) {
  auto length = static_cast<uint32_t>(body.size());
  auto out = encode_body(FrameHeader{length, static_cast<uint16_t>(type), 0, frame_checksum(type, length, as_bytes(body))});
  return out.append(body);
}

std::string encode_chunk(const ChunkHead& head, size_t payload_bytes) {
  auto body = encode_body(head);
  auto length = static_cast<uint32_t>(body.size() + payload_bytes);
  auto type = FrameType::kChunk;
  auto out = encode_body(FrameHeader{length, static_cast<uint16_t>(type), 0, frame_checksum(type, length, as_bytes(body))});
  return out.append(body);
}

Result<FrameHeader> decode_header(std::span<const std::byte> bytes) {
  FrameHeader h;
  Decoder d(bytes);
  h.fields(d);
  if (!d.ok()) return fail(Code::kInvalidArgument, "short frame header");
  if (h.zero != 0) return fail(Code::kInvalidArgument, "not a frame");
  bool chunk = h.type == static_cast<uint16_t>(FrameType::kChunk);
  if (chunk && (h.length < kChunkHeadBytes || h.length > kChunkHeadBytes + kChunkPayloadMax))
    return fail(Code::kOutOfRange, "chunk frame of ", h.length, " bytes");
  if (!chunk && h.length > kControlBodyMax)
    return fail(Code::kOutOfRange, "frame of type ", h.type, " has ", h.length, " bytes, allowed are ", kControlBodyMax);
  return h;
}

Result<ChunkHead> decode_chunk_head(const FrameHeader& header, std::span<const std::byte> head) {
  if (frame_checksum(FrameType::kChunk, header.length, head) != header.checksum)
    return fail(Code::kDataLoss, "frame checksum differs");
  ChunkHead h;
  Decoder d(head);
  h.fields(d);
  if (!d.ok()) return fail(Code::kInvalidArgument, "malformed chunk head");
  return h;
}

}  // namespace baton::transfer
