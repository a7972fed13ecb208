#include "epp/messages.h"

#include <bit>

#include "wire/headers.h"

namespace baton::epp {
namespace {

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

// Of a map: {key = 1, value = 2} in field 1: filter_metadata and Struct.fields alike. The value was written since `mark`.
void close_entry(ProtoWriter& out, std::string_view key, size_t mark) {
  out.close(2, mark);
  out.bytes(1, key);
  out.close(1, mark);
}

// A Struct in field 8: {"envoy.lb": {destination, scores}}; what is a struct is struct_value, field 5 of a Value.
void write_lb_metadata(ProtoWriter& out, const HeadersReply& reply) {
  const size_t begin = out.mark();
  if (!reply.scores.empty()) {
    for (size_t i = reply.scores.size(); i-- > 0;) {
      const size_t entry = out.mark();
      out.fixed64(2, std::bit_cast<uint64_t>(static_cast<double>(reply.scores[i].second)));  // number_value
      close_entry(out, reply.scores[i].first, entry);
    }
    out.close(5, begin);
    close_entry(out, kScores, begin);
  }
  if (!reply.destination.empty()) {
    const size_t entry = out.mark();
    out.bytes(3, reply.destination);  // string_value
    close_entry(out, wire::kGatewayDestination, entry);
  }
  if (out.mark() == begin) return;
  out.close(5, begin);
  close_entry(out, kLb, begin);
  out.close(8, begin);
}

void write_mutation(ProtoWriter& out, uint32_t field, std::span<const SetHeader> set, std::span<const std::string_view> remove) {
  const size_t begin = out.mark();
  for (size_t i = remove.size(); i-- > 0;) out.bytes(2, remove[i]);
  for (size_t i = set.size(); i-- > 0;) {
    const size_t header = out.mark();
    out.bytes(3, set[i].value);  // raw_value
    out.bytes(1, set[i].name);
    out.close(1, header);  // HeaderValueOption.header
    out.close(1, header);
  }
  if (out.mark() != begin) out.close(field, begin);
}

// ProcessingResponse's field for the answer to a part.
uint32_t answer_field(Part part) { return static_cast<uint32_t>(part) - 1; }

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

void write_headers_reply(ProtoWriter& out, Part part, const HeadersReply& reply) {
  write_body_reply(out, part, reply, std::nullopt);
}

void write_body_reply(ProtoWriter& out, Part part, const HeadersReply& reply, std::optional<std::string_view> new_body) {
  out.clear();
  write_lb_metadata(out, reply);
  const size_t common = out.mark();
  if (reply.clear_route_cache) out.number(5, 1);
  if (new_body) {
    const size_t mutation = out.mark();
    if (new_body->empty())
      out.number(2, 1);  // clear_body
    else
      out.bytes(1, *new_body);
    out.close(3, mutation);
  }
  write_mutation(out, 2, reply.set, reply.remove);
  out.close(1, common);  // .response
  out.close(answer_field(part), common);
}

void write_trailers_reply(ProtoWriter& out, Part part) {
  out.clear();
  out.close(answer_field(part), out.mark());
}

void write_immediate(ProtoWriter& out, int status, std::string_view body, std::span<const SetHeader> headers) {
  out.clear();
  const size_t begin = out.mark();
  out.bytes(3, body);
  write_mutation(out, 2, headers, {});
  const size_t code = out.mark();
  out.number(1, static_cast<uint64_t>(status));
  out.close(1, code);
  out.close(7, begin);
}

StreamedBody::StreamedBody(Part part, std::string_view bytes, bool end_of_stream) : pieces_{{}, bytes, {}} {
  constexpr std::string_view kEnd("\x10\x01", 2);  // end_of_stream = 2: true
  if (end_of_stream) pieces_[2] = kEnd;
  char* at = std::end(head_);
  size_t inside = bytes.size() + pieces_[2].size();
  const auto open = [&](uint32_t field, size_t size) {
    const size_t n = head_size(size);
    write_head(at -= n, field, 2, size);
    inside += n;
  };
  if (!bytes.empty()) open(1, bytes.size());
  open(3, inside);  // .streamed_response
  open(3, inside);  // .body_mutation
  open(1, inside);  // .response
  open(answer_field(part), inside);
  pieces_[0] = {at, static_cast<size_t>(std::end(head_) - at)};
}

}  // namespace baton::epp
