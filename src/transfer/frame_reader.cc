#include "transfer/conn.h"

namespace baton::transfer {

constexpr size_t kDiscardBytes = 256u << 10;

FrameReader::FrameReader(FrameHandler& handler) : handler_(handler) { expect(State::kHeader, kFrameHeaderBytes); }

void FrameReader::expect(State state, size_t bytes) {
  state_ = state;
  buffer_.resize(bytes);
  parts_.assign(1, {buffer_.data(), bytes});
  part_ = 0;
}

std::span<iovec> FrameReader::want() {
  if (discard_left_ > 0) {
    discard_.resize(kDiscardBytes);
    parts_.assign(1, {discard_.data(), std::min(discard_left_, kDiscardBytes)});
    part_ = 0;
  }
  return std::span(parts_).subspan(part_);
}

Result<> FrameReader::got(size_t bytes) {
  if (discard_left_ > 0) {
    discard_left_ -= bytes;
    return discard_left_ == 0 ? complete() : Result<>{};
  }
  while (bytes > 0) {
    auto& p = parts_[part_];
    auto n = std::min(bytes, p.iov_len);
    p.iov_base = static_cast<std::byte*>(p.iov_base) + n;
    p.iov_len -= n;
    bytes -= n;
    if (p.iov_len == 0) ++part_;
  }
  return part_ == parts_.size() ? complete() : Result<>{};
}

void FrameReader::drop_landing() {
  if (state_ != State::kPayload || kind_ != Landing::Kind::kScatter) return;
  kind_ = Landing::Kind::kDiscard;
  report_ = false;
  for (; part_ < parts_.size(); ++part_) discard_left_ += parts_[part_].iov_len;
}

Result<> FrameReader::complete() {
  switch (state_) {
    case State::kHeader: {
      BATON_TRY(header_, decode_header(buffer_));
      if (header_.type == static_cast<uint16_t>(FrameType::kChunk)) return expect(State::kChunkHead, kChunkHeadBytes), Result<>{};
      expect(State::kBody, header_.length);
      return header_.length == 0 ? complete() : Result<>{};
    }
    case State::kBody: {
      auto type = static_cast<FrameType>(header_.type);
      if (frame_checksum(type, header_.length, buffer_) != header_.checksum)
        return fail(Code::kDataLoss, "frame checksum differs");
      ++frames_;
      BATON_OK(handler_.on_frame(type, buffer_));
      expect(State::kHeader, kFrameHeaderBytes);
      return {};
    }
    case State::kChunkHead:
      return begin_payload();
    case State::kPayload: {
      auto collected = kind_ == Landing::Kind::kCollect ? std::span<const std::byte>(buffer_) : std::span<const std::byte>();
      bool report = report_;
      ++frames_;
      state_ = State::kHeader;  // drop_landing() from inside the handler has nothing to drop any more
      if (report) BATON_OK(handler_.on_chunk_end(chunk_, collected));
      expect(State::kHeader, kFrameHeaderBytes);
      return {};
    }
  }
  return {};
}

Result<> FrameReader::begin_payload() {
  BATON_TRY(chunk_, decode_chunk_head(header_, buffer_));
  size_t payload = header_.length - kChunkHeadBytes;
  BATON_TRY(auto landing, handler_.on_chunk(chunk_, payload));
  kind_ = landing.kind;
  report_ = kind_ != Landing::Kind::kDiscard || landing.report;
  if (kind_ == Landing::Kind::kCollect && payload > landing.collect_max)
    return fail(Code::kOutOfRange, "chunk payload of ", payload, " bytes");
  state_ = State::kPayload;
  discard_left_ = 0;
  if (kind_ == Landing::Kind::kDiscard) {
    discard_left_ = payload;
  } else if (kind_ == Landing::Kind::kCollect) {
    expect(State::kPayload, payload);
  } else {
    size_t total = 0;
    for (const auto& p : landing.parts) total += p.iov_len;
    BATON_CHECK(total == payload);
    parts_ = std::move(landing.parts);
    part_ = 0;
  }
  return payload == 0 ? complete() : Result<>{};
}

}  // namespace baton::transfer
