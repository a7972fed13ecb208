// A proxy that says anything in any order: one byte chooses what happens, the next two give a message's length. Every answer must
// be a ProcessingResponse, none may come after the end, and the counts of the picker's double must come back to nothing.
#include "epp/stream.h"
#include "epp/testing/fake_picker.h"
#include "ext_proc.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  namespace pb = envoy::service::ext_proc::v3;
  if (size < 2) return 0;
  epp::Script script;
  script.choice.destination = "10.0.0.1:8000";
  script.holds = (data[0] & 1) != 0;
  script.wants_answer = (data[0] & 2) != 0;
  if ((data[0] & 4) != 0) script.refuses = picker::Refusal{};
  if ((data[0] & 8) != 0) script.body_bytes_max = 100;
  if ((data[0] & 16) != 0) script.new_body = "new";
  if ((data[0] & 32) != 0) script.from = "a", script.to = "bc";
  epp::FakePicker picker(script);
  Metrics metrics;
  epp::StreamMetrics stream_metrics(metrics, true);
  ManualClock clock;
  epp::Door door(picker, clock, stream_metrics, {.body_timeout_ms = 1'000, .echo_headers = (data[0] & 64) != 0});
  epp::FakeCall call;
  call.proxy_waits = (data[0] & 128) != 0;
  {
    epp::Stream stream(door, call);
    int immediate = 0;
    for (size_t at = 1; at + 3 <= size;) {
      const uint8_t what = data[at];
      const size_t length = std::min<size_t>(data[at + 1] | data[at + 2] << 8, size - at - 3);
      at += 3;
      if (what < 240) {
        if (!call.finished) stream.on_message({reinterpret_cast<const char*>(data + at), length});
        at += length;
      } else if (what < 244) {
        clock.advance_ms(700);
        door.sweep();
      } else if (what < 246) {
        if (call.take_all() && !call.finished) stream.on_room();
      } else if (what < 250 && picker.flight != nullptr && picker.flight->waiting()) {
        picker.flight->release();
      } else if (what < 252 && picker.flight != nullptr) {
        picker.flight->evict({.status = 429, .message = "evicted", .drop_reason = "evicted", .retry_after_s = 0});
      } else if (what == 255 && !call.finished) {
        stream.on_half_close();
      }
      for (; !call.messages.empty(); call.messages.pop_front()) {
        pb::ProcessingResponse message;
        BATON_CHECK(message.ParseFromString(call.messages.front()));
        BATON_CHECK(message.response_case() != pb::ProcessingResponse::RESPONSE_NOT_SET);
        immediate += message.has_immediate_response();
      }
      BATON_CHECK(immediate <= 1);
    }
    stream.on_closed();
  }
  BATON_CHECK(picker.flight == nullptr);
  return 0;
}
