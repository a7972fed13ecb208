#pragma once
// The messages of envoy.service.ext_proc.v3 as an endpoint picker needs them: ProcessingRequest read in place, ProcessingResponse
// written into one buffer, or, around a body that is passed on, into a few bytes before it. By hand, because a message is read
// and one is written for every chunk of every answer: protobuf's arenas cost several times as much (epp_bench).
// proto/ext_proc.proto has the same messages; the tests and the fuzzer hold this
// code to what protobuf makes of them.
// Requires: an Inbound's views die with the bytes it was read from. Guarantees: readers take any bytes; writers replace what the
// ProtoWriter held by one message in canonical form. Source: facts sheet "epp" 1.1.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "epp/proto_reader.h"
#include "epp/proto_writer.h"

namespace baton::epp {

// The numbers are those of ProcessingRequest's fields.
enum class Part : uint8_t {
  kNone = 0,
  kRequestHeaders = 2,
  kResponseHeaders = 3,
  kRequestBody = 4,
  kResponseBody = 5,
  kRequestTrailers = 6,
  kResponseTrailers = 7,
};
std::string_view part_name(Part part);  // "request_headers"

// How the proxy sends bodies and what answer it expects (ProcessingMode.BodySendMode).
enum class BodyMode : uint8_t { kNone, kStreamed, kBuffered, kBufferedPartial, kFullDuplex, kGrpc };
struct Modes {
  BodyMode request = BodyMode::kFullDuplex, response = BodyMode::kFullDuplex;  // older proxies do not say
  bool body_before_answer = true;                                              // send_body_without_waiting_for_header_response
};

struct Inbound {
  Part part = Part::kNone;
  bool end_of_stream = false;
  std::string_view body;
  std::string_view headers;   // a HeaderMap, for for_each_header()
  std::string_view metadata;  // a core.v3.Metadata, for metadata_list(); "" if the message has none
  bool observability = false;
  std::optional<Modes> modes;  // protocol_config; only the first message of a stream has it
};
Result<Inbound> read_request(std::string_view bytes);

// f(key, value): value is raw_value where that is not empty. False if the map is malformed.
template <class F>
bool for_each_header(std::string_view map, F f) {
  ProtoReader fields(map);
  while (fields.next()) {
    if (!fields.is_bytes(1)) continue;
    std::string_view key, value, raw;
    ProtoReader header(fields.bytes());
    while (header.next()) {
      if (header.is_bytes(1)) key = header.bytes();
      if (header.is_bytes(2)) value = header.bytes();
      if (header.is_bytes(3)) raw = header.bytes();
    }
    if (!header.ok()) return false;
    f(key, raw.empty() ? value : raw);
  }
  return fields.ok();
}

// filter_metadata[name_space][key] as strings: a list's strings, or one string. nullopt: the key is not there.
std::optional<std::vector<std::string>> metadata_list(std::string_view metadata, std::string_view name_space,
                                                      std::string_view key);

struct SetHeader {
  std::string_view name, value;
};

// What one HeadersResponse says. Empty lists and strings are left out of the message.
struct HeadersReply {
  std::span<const SetHeader> set;
  std::span<const std::string_view> remove;
  bool clear_route_cache = false;
  std::string_view destination;                           // dynamic_metadata "envoy.lb" / "x-gateway-destination-endpoint"
  std::span<const std::pair<std::string, float>> scores;  // ... / "x-gateway-destination-endpoint-scores"
};

// `part` is what is answered. A body's answer may carry headers too where the proxy still holds them back (kBuffered).
void write_headers_reply(ProtoWriter& out, Part part, const HeadersReply& reply);
void write_body_reply(ProtoWriter& out, Part part, const HeadersReply& reply, std::optional<std::string_view> new_body);
void write_trailers_reply(ProtoWriter& out, Part part);
void write_immediate(ProtoWriter& out, int status, std::string_view body, std::span<const SetHeader> headers);

// A piece of a body in full duplex: the message around `bytes`, which stay where they are.
class StreamedBody {
 public:
  StreamedBody(Part part, std::string_view bytes, bool end_of_stream);
  StreamedBody(const StreamedBody&) = delete;
  std::span<const std::string_view> pieces() const { return pieces_; }

 private:
  char head_[5 * kHeadBytesMax];  // five lengths
  std::string_view pieces_[3];
};

}  // namespace baton::epp
