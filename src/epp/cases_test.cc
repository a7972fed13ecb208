// Plays tests/cases/ext_proc/*.case (README there says how they are written). What goes in is made, and what comes out is read,
// by protobuf itself from proto/ext_proc.proto, so a case also judges messages.h.
#include <google/protobuf/util/json_util.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "epp/stream.h"
#include "epp/testing/fake_picker.h"
#include "ext_proc.pb.h"

namespace baton::epp {
namespace {

namespace pb = envoy::service::ext_proc::v3;

struct Section {
  std::vector<std::string> words;
  std::vector<std::string> lines;
  int at = 0;
  bool says(std::string_view word) const { return std::ranges::find(words, word) != words.end(); }
  std::string text() const {
    std::string out;
    for (const std::string& line : lines) out += (out.empty() ? "" : "\n") + line;
    return out;
  }
};

std::vector<std::string> split(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

std::vector<Section> read_case(const std::filesystem::path& path) {
  std::vector<Section> sections;
  std::ifstream in(path);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.starts_with("--- ")) {
      sections.push_back({split(line.substr(4)), {}, number});
    } else if (!sections.empty()) {
      sections.back().lines.push_back(line);
    } else {
      BATON_CHECK(line.starts_with('#'));
    }
  }
  return sections;
}

// "name: value" lines; "repeat N text" stands for text N times.
std::pair<std::string, std::string> name_value(const std::string& line) {
  const size_t colon = line.find(": ", 1);
  BATON_CHECK(colon != std::string::npos);
  return {line.substr(0, colon), line.substr(colon + 2)};
}
std::string body_text(const Section& section) {
  const std::string text = section.text();
  if (!text.starts_with("repeat ")) return text;
  const auto words = split(text);
  std::string out;
  for (int i = std::stoi(words.at(1)); i > 0; --i) out += words.at(2);
  return out;
}

int mode_number(const std::string& name) {
  const std::array names = {"none", "streamed", "buffered", "buffered_partial", "full_duplex", "grpc"};
  const auto it = std::ranges::find(names, name);
  BATON_CHECK(it != names.end());
  return static_cast<int>(it - names.begin());
}

picker::Refusal refusal(const std::vector<std::string>& words) {  // refuse STATUS REASON|- RETRY MESSAGE...
  picker::Refusal out{
      .status = std::stoi(words.at(1)), .message = "", .drop_reason = "", .retry_after_s = std::stoi(words.at(3))};
  if (words[2] != "-") out.drop_reason = words[2];
  for (size_t i = 4; i < words.size(); ++i) out.message += (i == 4 ? "" : " ") + words[i];
  return out;
}

Script read_script(const Section& section) {
  Script script;
  for (const std::string& line : section.lines) {
    const auto words = split(line);
    const std::string rest = line.size() > words[0].size() ? line.substr(words[0].size() + 1) : "";
    if (words[0] == "destination") script.choice.destination = rest;
    if (words[0] == "set") script.choice.set_headers.push_back(name_value(rest));
    if (words[0] == "remove") script.choice.remove_headers.push_back(rest);
    if (words[0] == "score") script.choice.scores.emplace_back(words.at(1), std::stof(words.at(2)));
    if (words[0] == "refuse") script.refuses = refusal(words);
    if (words[0] == "refuse_body") script.refuses_feed = refusal(words);
    if (words[0] == "no_endpoint") script.no_endpoint = refusal(words);
    if (words[0] == "any") script.any = rest;
    if (words[0] == "limit") script.body_bytes_max = std::stoul(words.at(1));
    if (words[0] == "hold") script.holds = true;
    if (words[0] == "ignores_answer") script.wants_answer = false;
    if (words[0] == "body") script.new_body = rest;
    if (words[0] == "replace") script.from = words.at(1), script.to = words.at(2);
    if (words[0] == "answer_header") script.answer_headers.push_back(name_value(rest));
  }
  return script;
}

// ---- what goes in

void fill_headers(const Section& section, pb::ProcessingRequest& message, pb::HttpHeaders& part) {
  part.set_end_of_stream(section.says("end"));
  for (const std::string& line : section.lines) {
    auto [name, value] = name_value(line);
    if (name == "!metadata" || name == "!protocol") continue;
    auto* header = part.mutable_headers()->add_headers();
    header->set_key(name);
    section.says("value") ? header->set_value(value) : header->set_raw_value(value);
  }
  (void)message;
}

void fill_metadata(const Section& section, pb::ProcessingRequest& message) {
  for (const std::string& line : section.lines) {
    if (line.starts_with("!metadata: ")) {
      auto status = google::protobuf::util::JsonStringToMessage(R"({"filterMetadata":)" + line.substr(11) + "}",
                                                                message.mutable_metadata_context());
      BATON_CHECK(status.ok());
    }
    if (line.starts_with("!protocol: ")) {
      const auto words = split(line.substr(11));
      message.mutable_protocol_config()->set_request_body_mode(mode_number(words.at(0)));
      message.mutable_protocol_config()->set_response_body_mode(mode_number(words.at(1)));
      message.mutable_protocol_config()->set_send_body_without_waiting_for_header_response(words.size() > 2);
    }
  }
}

std::string inbound(const Section& section) {
  pb::ProcessingRequest message;
  const std::string& kind = section.words.at(1);
  Section plain = section;
  std::erase_if(plain.lines, [](const std::string& line) { return line.starts_with("!"); });
  if (kind == "request_headers") fill_headers(section, message, *message.mutable_request_headers());
  if (kind == "response_headers") fill_headers(section, message, *message.mutable_response_headers());
  for (auto* part : {kind == "request_body" ? message.mutable_request_body() : nullptr,
                     kind == "response_body" ? message.mutable_response_body() : nullptr}) {
    if (part == nullptr) continue;
    part->set_body(body_text(plain));
    part->set_end_of_stream(section.says("end"));
  }
  if (kind == "request_trailers") message.mutable_request_trailers()->mutable_trailers();
  if (kind == "response_trailers") message.mutable_response_trailers()->mutable_trailers();
  fill_metadata(section, message);
  message.set_observability_mode(section.says("observed"));
  return message.SerializeAsString();
}

// ---- what comes out, as text

template <class Mutation>
void show_mutation(const Mutation& mutation, std::string& out) {
  for (const auto& option : mutation.set_headers()) {
    out += cat("set ", option.header().key(), ": ", option.header().raw_value(), "\n");
    EXPECT_EQ(option.header().value(), "");
  }
  for (const auto& name : mutation.remove_headers()) out += cat("remove ", name, "\n");
}

std::string show_bytes(const std::string& bytes) { return bytes.size() > 200 ? cat(bytes.size(), " bytes\n") : bytes + "\n"; }

void show_common(const pb::CommonResponse& common, std::string& out) {
  if (common.clear_route_cache()) out += "clear_route_cache\n";
  show_mutation(common.header_mutation(), out);
  const pb::BodyMutation& body = common.body_mutation();
  if (body.has_streamed_response()) {
    out += cat("streamed", body.streamed_response().end_of_stream() ? " end" : "", "\n");
    if (!body.streamed_response().body().empty()) out += show_bytes(body.streamed_response().body());
  }
  if (body.clear_body()) out += "clear_body\n";
  if (body.mutation_case() == pb::BodyMutation::kBody) out += "body\n" + show_bytes(body.body());
}

std::string show(const std::string& bytes) {
  pb::ProcessingResponse message;
  EXPECT_TRUE(message.ParseFromString(bytes));
  EXPECT_EQ(message.GetReflection()->GetUnknownFields(message).field_count(), 0);
  EXPECT_EQ(message.ByteSizeLong(), bytes.size()) << "not canonical";
  std::string out;
  switch (message.response_case()) {
    case pb::ProcessingResponse::kRequestHeaders:
      out = "request_headers\n";
      show_common(message.request_headers().response(), out);
      break;
    case pb::ProcessingResponse::kResponseHeaders:
      out = "response_headers\n";
      show_common(message.response_headers().response(), out);
      break;
    case pb::ProcessingResponse::kRequestBody:
      out = "request_body\n";
      show_common(message.request_body().response(), out);
      break;
    case pb::ProcessingResponse::kResponseBody:
      out = "response_body\n";
      show_common(message.response_body().response(), out);
      break;
    case pb::ProcessingResponse::kRequestTrailers:
      out = "request_trailers\n";
      break;
    case pb::ProcessingResponse::kResponseTrailers:
      out = "response_trailers\n";
      break;
    case pb::ProcessingResponse::kImmediateResponse:
      out = cat("immediate ", message.immediate_response().status().code(), "\n");
      show_mutation(message.immediate_response().headers(), out);
      out += message.immediate_response().body() + "\n";
      break;
    default:
      out = "nothing\n";
  }
  if (message.has_dynamic_metadata()) {
    std::string json;
    BATON_CHECK(google::protobuf::util::MessageToJsonString(message.dynamic_metadata(), &json).ok());
    out += "metadata " + nlohmann::json::parse(json).dump() + "\n";  // protobuf's maps have no order
  }
  out.pop_back();
  return out;
}

// ---- playing

struct Play {
  explicit Play(Script script, DoorOptions options)
      : picker(std::move(script)),
        stream_metrics(metrics, true),
        door(picker, clock, stream_metrics, options),
        stream(new Stream(door, call)) {}

  void in(const Section& section) {
    const std::string& kind = section.words.at(1);
    if (kind == "half_close") return stream->on_half_close();
    if (kind == "closed") return stream->on_closed();
    if (kind == "bytes") return stream->on_message(section.text());
    if (kind == "release") return picker.flight->release();
    if (kind == "room") {
      if (call.take_all()) stream->on_room();
      return;
    }
    if (kind == "evict")
      return picker.flight->evict(refusal({"", section.words.at(2), section.words.at(3), "0", section.text()}));
    if (kind == "wait") {
      clock.advance_ms(std::stoi(section.words.at(2)));
      return door.sweep();
    }
    stream->on_message(inbound(section));
  }
  // "nothing" is an answer too: every message must be expected.
  std::string out() {
    if (call.messages.empty())
      return call.finished && !end_shown ? (end_shown = true, cat("finish ", code_name(*call.finished))) : "nothing";
    std::string text = show(call.messages.front());
    call.messages.pop_front();
    return text;
  }

  FakePicker picker;
  Metrics metrics;
  ManualClock clock;
  StreamMetrics stream_metrics;
  Door door;
  FakeCall call;
  std::unique_ptr<Stream> stream;
  bool end_shown = false;
};

// A generated request id differs from run to run.
std::string without_uuid(std::string text) {
  const std::string_view key = "set x-request-id: ";
  const size_t at = text.find(key);
  if (at != std::string::npos && text.size() >= at + key.size() + 36 && text[at + key.size() + 8] == '-') {
    text.replace(at + key.size(), 36, "UUID");
  }
  return text;
}

class Cases : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Cases, Holds) {
  const auto sections = read_case(GetParam());
  Script script;
  script.choice.destination = "10.0.0.1:8000";
  DoorOptions options;
  for (const Section& section : sections) {
    if (section.words.at(0) == "picker") script = read_script(section);
    if (section.words.at(0) == "echo_headers") options.echo_headers = true;
  }
  Play play(script, options);
  play.call.proxy_waits = std::ranges::any_of(sections, [](const Section& s) { return s.words.at(0) == "proxy_waits"; });
  for (const Section& section : sections) {
    const std::string where = cat(GetParam().filename().string(), ":", section.at);
    if (section.words[0] == "in") {
      EXPECT_EQ(play.out(), "nothing") << "before " << where;
      play.in(section);
    } else if (section.words[0] == "out") {
      std::string want = section.text();
      for (size_t i = section.words.size(); i-- > 1;)
        want = section.words[i] + (i + 1 == section.words.size() ? (want.empty() ? "" : "\n") : " ") + want;
      EXPECT_EQ(without_uuid(play.out()), want) << where;
    } else if (section.words[0] == "asked") {
      std::string said;
      for (const std::string& line : play.picker.said) said += (said.empty() ? "" : "\n") + line;
      play.picker.said.clear();
      EXPECT_EQ(said, section.text()) << where;
    }
  }
  EXPECT_EQ(play.out(), "nothing") << "at the end";
}

std::vector<std::filesystem::path> all_cases() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(BATON_SOURCE_DIR "/tests/cases/ext_proc")) {
    if (entry.path().extension() == ".case") paths.push_back(entry.path());
  }
  std::ranges::sort(paths);
  return paths;
}

INSTANTIATE_TEST_SUITE_P(ExtProc, Cases, testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.stem().string(); });

}  // namespace
}  // namespace baton::epp
