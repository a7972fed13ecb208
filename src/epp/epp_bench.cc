// Reading a request's chunk and writing its answer: by hand (messages.h) and by protobuf with an arena; and a whole streamed
// call.
#include <benchmark/benchmark.h>
#include <google/protobuf/arena.h>

#include "epp/stream.h"
#include "epp/testing/fake_picker.h"
#include "ext_proc.pb.h"

namespace baton::epp {
namespace {

namespace pb = envoy::service::ext_proc::v3;

std::string chunk_message(size_t bytes) {
  pb::ProcessingRequest m;
  m.mutable_response_body()->set_body(std::string(bytes, 'x'));
  return m.SerializeAsString();
}

void by_hand(benchmark::State& state) {
  const std::string in = chunk_message(static_cast<size_t>(state.range(0)));
  std::string out;
  for (auto _ : state) {
    const auto message = read_request(in);
    out.clear();
    const StreamedBody answer(Part::kResponseBody, message->body, message->end_of_stream);
    for (std::string_view piece : answer.pieces()) out += piece;
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(by_hand)->Arg(200)->Arg(62'000);

void by_protobuf(benchmark::State& state) {
  const std::string in = chunk_message(static_cast<size_t>(state.range(0)));
  std::string out;
  google::protobuf::Arena arena;
  for (auto _ : state) {
    auto* message = google::protobuf::Arena::CreateMessage<pb::ProcessingRequest>(&arena);
    message->ParseFromString(in);
    auto* answer = google::protobuf::Arena::CreateMessage<pb::ProcessingResponse>(&arena);
    auto* piece = answer->mutable_response_body()->mutable_response()->mutable_body_mutation()->mutable_streamed_response();
    piece->set_body(message->response_body().body());
    piece->set_end_of_stream(message->response_body().end_of_stream());
    answer->SerializeToString(&out);
    benchmark::DoNotOptimize(out.data());
    arena.Reset();
  }
}
BENCHMARK(by_protobuf)->Arg(200)->Arg(62'000);

}  // namespace
}  // namespace baton::epp
