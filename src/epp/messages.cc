#include "epp/messages.h"

#include <bit>

#include "wire/headers.h"

namespace baton::epp {
namespace {

constexpr size_t varint_size(uint64_t value) { return 1 + static_cast<size_t>(63 - std::countl_zero(value | 1)) / 7; }
// Every field number we write is below 16: one byte of tag.
constexpr size_t field_size(size_t bytes) { return 1 + varint_size(bytes) + bytes; }

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void append_number(std::string& out, int field, uint64_t value) {
  out += static_cast<char>(field << 3);
  append_varint(out, value);
}
void open(std::string& out, int field, size_t size) {
  out += static_cast<char>(field << 3 | 2);
  append_varint(out, size);
}
void append_bytes(std::string& out, int field, std::string_view bytes) {
  open(out, field, bytes.size());
  out += bytes;
}

// HttpHeaders, HttpBody and HttpTrailers; nothing in trailers concerns us.
bool read_part(Inbound& out, std::string_view bytes) {
  const bool headers = out.part == Part::kRequestHeaders || out.part == Part::kResponseHeaders;
  const bool body = out.part == Part::kRequestBody || out.part == Part::kResponseBody;
  ProtoReader reader(bytes);
  while (reader.next()) {
    if (headers && reader.is_bytes(1)) out.headers = reader.bytes();
    if (body && reader.is_bytes(1)) out.body = reader.bytes();
    if (reader.is_number(headers ? 3 : 2)) out.end_of_stream = reader.boolean();
  }
  return reader.ok();
}

BodyMode body_mode(uint64_t number) {
  return number <= static_cast<uint64_t>(BodyMode::kGrpc) ? static_cast<BodyMode>(number) : BodyMode::kFullDuplex;
}
Modes read_modes(std::string_view bytes) {
  Modes modes{BodyMode::kNone, BodyMode::kNone, false};
  for (ProtoReader reader(bytes); reader.next();) {
    if (reader.is_number(1)) modes.request = body_mode(reader.number());
    if (reader.is_number(2)) modes.response = body_mode(reader.number());
    if (reader.is_number(3)) modes.body_before_answer = reader.boolean();
  }
  return modes;
}

// The value of `key` in an encoded map<string, message>; of equal keys the last, as protobuf has it.
std::optional<std::string_view> map_value(std::string_view message, uint32_t map_field, std::string_view key) {
  std::optional<std::string_view> found;
  for (ProtoReader entries(message); entries.next();) {
    if (!entries.is_bytes(map_field)) continue;
    std::string_view name, value;
    for (ProtoReader entry(entries.bytes()); entry.next();) {
      if (entry.is_bytes(1)) name = entry.bytes();
      if (entry.is_bytes(2)) value = entry.bytes();
    }
    if (name == key) found = value;
  }
  return found;
}

// google.protobuf.Value: string_value = 3, list_value = 6 {values = 1}.
void append_strings(std::string_view value, std::vector<std::string>& out, int depth) {
  for (ProtoReader reader(value); reader.next();) {
    if (reader.is_bytes(3)) out.emplace_back(reader.bytes());
    if (!reader.is_bytes(6) || depth == 0) continue;
    for (ProtoReader list(reader.bytes()); list.next();) {
      if (list.is_bytes(1)) append_strings(list.bytes(), out, depth - 1);
    }
  }
}

constexpr std::string_view kLb = "envoy.lb", kScores = "x-gateway-destination-endpoint-scores";

// map entries {key = 1, value = 2} of field 1: filter_metadata and Struct.fields alike.
void append_entry(std::string& out, std::string_view key, std::string_view value) {
  open(out, 1, field_size(key.size()) + field_size(value.size()));
  append_bytes(out, 1, key);
  append_bytes(out, 2, value);
}

// A Struct: {"envoy.lb": {destination, scores}}; the value of a namespace is a Value holding a struct (5).
std::string lb_metadata(const HeadersReply& reply) {
  std::string lb, value;
  if (!reply.destination.empty()) {
    append_bytes(value, 3, reply.destination);
    append_entry(lb, wire::kGatewayDestination, value);
  }
  if (!reply.scores.empty()) {
    std::string scores, number;
    for (const auto& [endpoint, score] : reply.scores) {
      const auto bits = std::bit_cast<uint64_t>(static_cast<double>(score));
      number.assign(1, 2 << 3 | 1);  // number_value = 2, a double
      number.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
      append_entry(scores, endpoint, number);
    }
    value.clear();
    append_bytes(value, 5, scores);
    append_entry(lb, kScores, value);
  }
  std::string out;
  if (lb.empty()) return out;
  value.clear();
  append_bytes(value, 5, lb);
  append_entry(out, kLb, value);
  return out;
}

void append_mutation(std::string& out, std::span<const SetHeader> set, std::span<const std::string_view> remove) {
  for (const SetHeader& header : set) {
    const size_t inner = field_size(header.name.size()) + field_size(header.value.size());
    open(out, 1, field_size(inner));  // HeaderValueOption
    open(out, 1, inner);              // .header
    append_bytes(out, 1, header.name);
    append_bytes(out, 3, header.value);  // raw_value
  }
  for (std::string_view name : remove) append_bytes(out, 2, name);
}

// ProcessingResponse's field for the answer to a part.
int answer_field(Part part) { return static_cast<int>(part) - 1; }

void append_common(std::string& out, Part part, const HeadersReply& reply, std::string_view body_mutation, bool mutates_body) {
  std::string common, mutation;
  append_mutation(mutation, reply.set, reply.remove);
  if (!mutation.empty()) append_bytes(common, 2, mutation);
  if (mutates_body) append_bytes(common, 3, body_mutation);
  if (reply.clear_route_cache) append_number(common, 5, 1);
  open(out, answer_field(part), field_size(common.size()));
  append_bytes(out, 1, common);
  if (const std::string metadata = lb_metadata(reply); !metadata.empty()) append_bytes(out, 8, metadata);
}

}  // namespace

std::string_view part_name(Part part) {
  constexpr std::string_view names[] = {"none",
                                        "",
                                        "request_headers",
                                        "response_headers",
                                        "request_body",
                                        "response_body",
                                        "request_trailers",
                                        "response_trailers"};
  return names[static_cast<size_t>(part)];
}

Result<Inbound> read_request(std::string_view bytes) {
  Inbound out;
  ProtoReader reader(bytes);
  while (reader.next()) {
    const uint32_t field = reader.field();
    if (field >= 2 && field <= 7 && reader.is_bytes(field)) {
      out.part = static_cast<Part>(field);
      out.end_of_stream = false, out.body = {}, out.headers = {};
      if (!read_part(out, reader.bytes())) return fail(Code::kInvalidArgument, "malformed ", part_name(out.part));
    } else if (reader.is_bytes(8)) {
      out.metadata = reader.bytes();
    } else if (reader.is_number(10)) {
      out.observability = reader.boolean();
    } else if (reader.is_bytes(11)) {
      out.modes = read_modes(reader.bytes());
    }
  }
  if (!reader.ok()) return fail(Code::kInvalidArgument, "malformed ProcessingRequest");
  return out;
}

std::optional<std::vector<std::string>> metadata_list(std::string_view metadata, std::string_view name_space,
                                                      std::string_view key) {
  const auto fields = map_value(metadata, 1, name_space);
  const auto value = fields ? map_value(*fields, 1, key) : std::nullopt;
  if (!value) return std::nullopt;
  std::vector<std::string> out;
  append_strings(*value, out, 1);
  return out;
}

void append_headers_reply(std::string& out, Part part, const HeadersReply& reply) { append_common(out, part, reply, {}, false); }

void append_body_reply(std::string& out, Part part, const HeadersReply& reply, std::optional<std::string_view> new_body) {
  if (!new_body) return append_common(out, part, reply, {}, false);
  std::string mutation;
  if (new_body->empty())
    append_number(mutation, 2, 1);  // clear_body
  else
    append_bytes(mutation, 1, *new_body);
  append_common(out, part, reply, mutation, true);
}

void append_streamed_body(std::string& out, Part part, std::string_view bytes, bool end_of_stream) {
  const size_t piece = (bytes.empty() ? 0 : field_size(bytes.size())) + (end_of_stream ? 2 : 0);
  const size_t mutation = field_size(piece), common = field_size(mutation), answer = field_size(common);
  out.reserve(out.size() + field_size(answer));
  open(out, answer_field(part), answer);
  open(out, 1, common);    // .response
  open(out, 3, mutation);  // .body_mutation
  open(out, 3, piece);     // .streamed_response
  if (!bytes.empty()) append_bytes(out, 1, bytes);
  if (end_of_stream) append_number(out, 2, 1);
}

void append_trailers_reply(std::string& out, Part part) { open(out, answer_field(part), 0); }

void append_immediate(std::string& out, int status, std::string_view body, std::span<const SetHeader> headers) {
  std::string code, mutation, answer;
  append_number(code, 1, static_cast<uint64_t>(status));
  append_bytes(answer, 1, code);
  append_mutation(mutation, headers, {});
  if (!mutation.empty()) append_bytes(answer, 2, mutation);
  append_bytes(answer, 3, body);
  append_bytes(out, 7, answer);
}

}  // namespace baton::epp
