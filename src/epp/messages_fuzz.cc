// What protobuf accepts in canonical form we must read alike; what we read of anything must stay inside the bytes.
#include "epp/messages.h"
#include "ext_proc.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  namespace pb = envoy::service::ext_proc::v3;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto any = epp::read_request(bytes)) {
    (void)epp::for_each_header(any->headers, [](std::string_view, std::string_view) {});
    (void)epp::metadata_list(any->metadata, "envoy.lb", "x");
  }
  pb::ProcessingRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return 0;
  message.DiscardUnknownFields();  // groups among them, which we refuse
  const std::string canonical = message.SerializeAsString();
  const auto in = epp::read_request(canonical);
  BATON_CHECK(in.has_value());
  BATON_CHECK(static_cast<int>(in->part) == static_cast<int>(message.request_case()));
  BATON_CHECK(in->observability == message.observability_mode());
  BATON_CHECK(in->modes.has_value() == message.has_protocol_config());
  if (message.has_request_body()) {
    BATON_CHECK(in->body == message.request_body().body() && in->end_of_stream == message.request_body().end_of_stream());
  }
  if (message.has_request_headers()) {
    int count = 0;
    BATON_CHECK(epp::for_each_header(in->headers, [&](std::string_view key, std::string_view) {
      BATON_CHECK(key == message.request_headers().headers().headers(count++).key());
    }));
    BATON_CHECK(count == message.request_headers().headers().headers_size());
  }
  return 0;
}
